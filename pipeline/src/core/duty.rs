//! What a process does for a job: what it must be allowed to do follows from it.

/// What a process does for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// All of it.
    All,
    /// Takes in or reads, routes, judges, compiles; carries out no calls.
    Router,
    /// Carries out calls.
    Worker,
}

impl Duty {
    /// All, for tables.
    pub const ALL: [Self; 3] = [Self::All, Self::Router, Self::Worker];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Router => "router",
            Self::Worker => "worker",
        }
    }

    /// The duty of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|duty| duty.as_str() == name)
    }

    /// Whether it reads or takes in, routes, judges.
    pub fn routes(self) -> bool {
        match self {
            Self::All | Self::Router => true,
            Self::Worker => false,
        }
    }

    /// Whether it carries out calls.
    pub fn works(self) -> bool {
        match self {
            Self::All | Self::Worker => true,
            Self::Router => false,
        }
    }
}
