//! The size branch: fines fall through to the function lane, lumps go alone to the container lane.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an item goes by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Many small items together.
    Function,
    /// One large item alone.
    Container,
}

impl Lane {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Function, Self::Container];

    /// The lane's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Container => "container",
        }
    }

    /// The lane of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == name)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which sizes each lane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRule {
    /// The function lane's largest object; none: any size.
    pub function_bytes_max: Option<u64>,
    /// Whether there is a container lane, and its largest object (none: any size).
    pub container: Option<Option<u64>>,
}

/// Where the size rule sends an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// To this lane.
    To(Lane),
    /// Nowhere: it fails as `TooLarge`, with the bound it exceeds.
    TooLarge {
        /// The largest bound there is.
        bytes_max: u64,
    },
}

impl SizeRule {
    /// The lane for an item; a value (no size) always goes to the function lane, and with one lane
    /// everything goes there.
    pub fn route(&self, size_bytes: Option<u64>) -> Routed {
        let Some(size_bytes) = size_bytes else {
            return Routed::To(Lane::Function);
        };
        let fits = |bytes_max: Option<u64>| bytes_max.is_none_or(|max| size_bytes <= max);
        if fits(self.function_bytes_max) {
            return Routed::To(Lane::Function);
        }
        match self.container {
            Some(bytes_max) if fits(bytes_max) => Routed::To(Lane::Container),
            Some(bytes_max) => Routed::TooLarge {
                bytes_max: bytes_max.unwrap_or(u64::MAX),
            },
            None => Routed::TooLarge {
                bytes_max: self.function_bytes_max.unwrap_or(u64::MAX),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_still_goes_to_the_function_lane() {
        let rule = SizeRule {
            function_bytes_max: Some(10),
            container: Some(Some(100)),
        };
        assert_eq!(rule.route(None), Routed::To(Lane::Function));
        assert_eq!(rule.route(Some(0)), Routed::To(Lane::Function));
        assert_eq!(rule.route(Some(10)), Routed::To(Lane::Function));
        assert_eq!(rule.route(Some(11)), Routed::To(Lane::Container));
        assert_eq!(rule.route(Some(100)), Routed::To(Lane::Container));
        assert_eq!(rule.route(Some(101)), Routed::TooLarge { bytes_max: 100 });
    }

    #[test]
    fn with_one_lane_everything_goes_there_up_to_its_bound() {
        let open = SizeRule {
            function_bytes_max: None,
            container: None,
        };
        assert_eq!(open.route(Some(u64::MAX)), Routed::To(Lane::Function));
        let bound = SizeRule {
            function_bytes_max: Some(5),
            container: None,
        };
        assert_eq!(bound.route(Some(6)), Routed::TooLarge { bytes_max: 5 });
    }
}
