//! What several of the suite's checks share: the contracts of the ports, for whoever implements them.

pub mod contract;
