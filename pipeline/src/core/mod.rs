//! Pure decisions: types, state machines, packing, tolerance, retry, redrive.
//!
//! Nothing here knows a clock, chance, a task or a service: state × event → state and effects, or a
//! refusal with a name. Time and random draws are arguments. So every rule can be read in one place,
//! printed as a table, and run by the simulator a million times a minute.
//!
//! Reading order: [`id`] and [`item`] name things, [`page`] is the unit that is leased and recorded,
//! [`run`] is its frame, [`tolerance`], [`retry`] and [`redrive`] are the promises made to users.

pub mod bill;
pub mod class;
pub mod duty;
pub mod estimate;
pub mod event;
pub mod form;
pub mod id;
pub mod invariant;
pub mod item;
pub mod job;
pub mod lane;
pub mod mark;
pub mod outcome;
pub mod packing;
pub mod page;
pub mod part;
pub mod planted;
pub mod price;
pub mod redrive;
pub mod retry;
pub mod run;
pub mod tally;
pub mod time;
pub mod tolerance;
pub mod window;
pub mod work;
