//! The ledger against a table that loses requests and replies: by random histories of several sessions,
//! and by the worst cases one by one.

mod actors;
mod audit;
mod faulty;
mod losses;
mod scene;

use proptest::prelude::*;

use actors::{Actor, Op, clear_up};
use audit::Audit;
use faulty::{Fault, Store, Tokens};

const SESSIONS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Begins something, if it is doing nothing, and goes on by so many calls.
    Do(Op, u8),
    /// Goes on to the end of what it does.
    Finish,
    Crash,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Create),
        8 => any::<u8>().prop_map(Op::Lease),
        8 => any::<u64>().prop_map(Op::Settle),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(page, item)| Op::Note(page, item)),
        2 => any::<u8>().prop_map(Op::Release),
        4 => any::<u8>().prop_map(Op::TakeOver),
        3 => any::<u8>().prop_map(Op::Reopen),
        4 => any::<u8>().prop_map(Op::ChangeRun),
        3 => Just(Op::LookAtRun),
        3 => any::<u8>().prop_map(Op::Take),
        3 => any::<u8>().prop_map(Op::Give),
        1 => any::<u8>().prop_map(Op::Bury),
    ]
}

fn any_step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        8 => (any_op(), 0u8..12).prop_map(|(op, calls)| Step::Do(op, calls)),
        8 => Just(Step::Finish),
        1 => Just(Step::Crash),
    ];
    (0..SESSIONS, step)
}

fn any_plan() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        16 => Just(Fault::None),
        2 => Just(Fault::LostReply),
        2 => Just(Fault::LostRequest),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::Conflict),
        1 => (1u8..30).prop_map(Fault::Outage),
    ];
    proptest::collection::vec(fault, 0..200)
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
            Step::Do(op, calls) => {
                actor.begin(&op);
                for _ in 0..calls {
                    actor.go_on(&mut audit)?;
                }
            }
            Step::Finish => {
                while actor.is_busy() {
                    actor.go_on(&mut audit)?;
                }
            }
            Step::Crash => actor.crash(),
        }
    }
    for actor in &mut actors {
        actor.heal();
        while actor.is_busy() {
            actor.go_on(&mut audit)?;
        }
    }
    clear_up(&store, &mut audit)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 5_000, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn promises_hold_whatever_is_lost_and_whoever_dies(
        tokens in any_tokens(),
        plans in proptest::collection::vec(any_plan(), SESSIONS),
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        history(tokens, plans, steps).map_err(TestCaseError::fail)?;
    }
}
