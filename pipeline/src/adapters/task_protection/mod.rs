//! Keeps ECS from ending the task that this process runs in while it carries out calls.
//!
//! A worker as an ECS service is ended by every deployment and every scale-in, and its long items would begin anew. The agent
//! of the machine, at `$ECS_AGENT_URI`, protects a task that asks for it ("Protect your Amazon ECS tasks from being
//! terminated by scale-in events"). It is a courtesy: without it nothing is lost, so no failure here stops any work. A spot
//! machine that is taken away, and StopTask, end a protected task all the same. Which calls run is not known here.

mod agent;
mod state;

use std::time::Duration;

use tokio::sync::Mutex;

use crate::ports::Runtime;
use agent::{Agent, NotDone};
use state::{Answer, Ask, Protection};

/// The variable that the agent sets in the containers of tasks.
const AGENT_URI: &str = "ECS_AGENT_URI";

/// How often it is looked whether calls run. A call may be unprotected for so long, and a look costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An agent is on this machine, but asks ECS itself before it answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The protection of the task that this process runs in.
pub struct TaskProtection {
    agent: Agent,
    runtime: Runtime,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    protection: Protection,
    /// Why it was not as asked last; none if it was.
    failure: Option<String>,
}

impl TaskProtection {
    /// None where no agent says that this is a task, or where what it says cannot be.
    pub fn from_env(runtime: &Runtime) -> Option<Self> {
        let uri = std::env::var(AGENT_URI).ok()?;
        match Agent::at(&uri) {
            Ok(agent) => Some(Self {
                agent,
                runtime: runtime.clone(),
                state: Mutex::new(State {
                    protection: Protection::new(),
                    failure: None,
                }),
            }),
            Err(problem) => {
                tracing::warn!(
                    uri,
                    problem,
                    "ECS_AGENT_URI is not believed: this task is not protected from scale-in"
                );
                None
            }
        }
    }

    /// Does the work, and keeps the task protected while calls of it run; `running` says how many. The protection is given up
    /// before this returns.
    pub async fn during<T>(&self, running: impl Fn() -> u32, work: impl Future<Output = T>) -> T {
        let done = tokio::select! {
            biased;
            done = work => done,
            never = self.keep(running) => match never {},
        };
        let mut state = self.state.lock().await;
        if let Some(ask) = state.protection.last() {
            self.ask(&mut state, ask).await;
        }
        done
    }

    async fn keep(&self, running: impl Fn() -> u32) -> std::convert::Infallible {
        loop {
            let mut state = self.state.lock().await;
            let now = self.runtime.clock.tick();
            if let Some(ask) = state.protection.next(running(), now) {
                self.ask(&mut state, ask).await;
            }
            drop(state);
            self.runtime.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(&self, state: &mut State, ask: Ask) {
        let clock = &self.runtime.clock;
        state.protection.asked(ask, clock.tick());
        let asking = self.runtime.within(ANSWER_WITHIN, self.agent.ask(ask));
        let (answer, failure) = match asking.await {
            Ok(Ok(())) => (Answer::Done, None),
            Ok(Err(NotDone::Refused(why))) => (Answer::Refused, Some(why)),
            Ok(Err(NotDone::Lost(why))) => (Answer::Lost, Some(why)),
            Err(elapsed) => (Answer::Lost, Some(elapsed.to_string())),
        };
        state.protection.answered(ask, answer, clock.tick());
        state.told(ask, failure);
    }
}

impl State {
    /// Tells what has changed since it was told last.
    fn told(&mut self, ask: Ask, failure: Option<String>) {
        match &failure {
            Some(why) if self.failure != failure => tracing::warn!(
                ?ask,
                why,
                "the agent of ECS did not change this task's protection from scale-in; its role needs \
                 ecs:GetTaskProtection and ecs:UpdateTaskProtection, and only tasks of services can have it"
            ),
            Some(why) => tracing::debug!(?ask, why, "the protection is not as asked, still"),
            None => tracing::info!(?ask, "this task's protection from scale-in"),
        }
        self.failure = failure;
    }
}
