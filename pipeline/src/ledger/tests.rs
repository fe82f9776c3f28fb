//! The ledger against a table that loses requests and replies: by random histories of several sessions,
//! and by the worst cases one by one.

mod actors;
mod audit;
mod deeds;
mod faulty;
mod losses;
mod scene;

use proptest::prelude::*;

use actors::{Actor, Op};
use audit::Audit;
use deeds::clear_up;
use faulty::{Fault, Store, Tokens};

const SESSIONS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Does something to the end; what is under way first.
    Do(Op),
    /// Begins something, if it is doing nothing, and goes on by so many turns.
    Begin(Op, u8),
    Crash,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Create),
        12 => any::<u8>().prop_map(Op::Lease),
        8 => any::<u64>().prop_map(Op::Settle),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(page, item)| Op::Note(page, item)),
        2 => any::<u8>().prop_map(Op::Release),
        2 => any::<u8>().prop_map(Op::TakeOver),
        3 => Just(Op::Sweep),
        6 => any::<u8>().prop_map(Op::Reopen),
        3 => any::<u8>().prop_map(Op::ChangeRun),
        2 => Just(Op::LookAtRun),
        2 => Just(Op::Redrive),
        3 => any::<u8>().prop_map(Op::Take),
        3 => any::<u8>().prop_map(Op::Give),
        1 => any::<u8>().prop_map(Op::Bury),
    ]
}

fn any_step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        20 => any_op().prop_map(Step::Do),
        10 => (any_op(), 0u8..12).prop_map(|(op, turns)| Step::Begin(op, turns)),
        1 => Just(Step::Crash),
    ];
    (0..SESSIONS, step)
}

fn any_plan() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        24 => Just(Fault::None),
        2 => Just(Fault::LostReply),
        2 => Just(Fault::LostRequest),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::Conflict),
        1 => (1u8..30).prop_map(Fault::Outage),
    ];
    proptest::collection::vec(fault, 0..400)
}

fn any_tokens() -> impl Strategy<Value = Tokens> {
    prop_oneof![Just(Tokens::Kept), Just(Tokens::Ignored)]
}

fn history(
    tokens: Tokens,
    plans: Vec<Vec<Fault>>,
    steps: Vec<(usize, Step)>,
) -> Result<(), String> {
    let store = Store::new(tokens);
    scene::set_up_pages(&store);
    let mut audit = Audit::new(&store);
    audit.look()?;
    let plans = plans.into_iter().enumerate();
    let mut actors: Vec<Actor> = plans
        .map(|(number, plan)| Actor::new(&store, number, plan))
        .collect();
    for (who, step) in steps {
        let actor = &mut actors[who];
        match step {
            Step::Do(op) => {
                actor.finish(&mut audit)?;
                actor.begin(&op);
                actor.finish(&mut audit)?;
            }
            Step::Begin(op, turns) => {
                actor.begin(&op);
                for _ in 0..turns {
                    actor.go_on(&mut audit)?;
                }
            }
            Step::Crash => actor.crash(),
        }
    }
    for actor in &mut actors {
        actor.heal();
        actor.finish(&mut audit)?;
    }
    clear_up(&store, &mut audit)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 5_000, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn promises_hold_whatever_is_lost_and_whoever_dies(
        tokens in any_tokens(),
        plans in proptest::collection::vec(any_plan(), SESSIONS),
        steps in proptest::collection::vec(any_step(), 1..300),
    ) {
        history(tokens, plans, steps).map_err(TestCaseError::fail)?;
    }
}
