//! What can go wrong between the SDK and a service.

use std::fmt;
use std::str::FromStr;

/// What the proxy does to a request.
///
/// The simulator's kinds of fault strike at the ports, these on the wire below the SDK: four have the same
/// name there, and [`Fault::at_port`] says what the others look like to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Done and answered, late.
    Slow,
    /// Not sent on; the connection is reset.
    RequestLost,
    /// Not sent on; answered with 500 and the service's own words for it.
    Error500,
    /// Not sent on; answered with 503 and the service's own words for it.
    Error503,
    /// Not sent on; refused as too fast, as the service does it.
    Throttled,
    /// Done; its answer is thrown away and the connection reset.
    ReplyLost,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Slow,
        Self::RequestLost,
        Self::Error500,
        Self::Error503,
        Self::Throttled,
        Self::ReplyLost,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::RequestLost => "request-lost",
            Self::Error500 => "error-500",
            Self::Error503 => "error-503",
            Self::Throttled => "throttled",
            Self::ReplyLost => "reply-lost",
        }
    }

    /// The name of the simulator's fault that a port cannot tell from this one. After a 500 or a 503 nobody
    /// knows whether it was done; here it never was.
    pub fn at_port(self) -> &'static str {
        match self {
            Self::Error500 | Self::Error503 => Self::RequestLost.as_str(),
            Self::Slow | Self::RequestLost | Self::Throttled | Self::ReplyLost => self.as_str(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.as_str() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no fault `{name}`: use one of {names}")
        })
    }
}
