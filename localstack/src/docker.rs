//! LocalStack in Docker, by testcontainers, on a port of the loopback interface.

use std::time::Duration;

use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};

use crate::watchdog::{self, Guard};

const IMAGE: &str = "localstack/localstack";
/// The last release that starts without a token.
const TAG: &str = "4.14.0";
/// LocalStack's one port for all services.
const PORT: u16 = 4566;

/// A gigabyte over a slow line, where the image is not there yet.
const PULL_WITHIN: Duration = Duration::from_mins(5);
/// It takes 2 s on an idle machine.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Starts a container and answers its URL; it goes when the guard (or the process) goes.
pub(crate) async fn start() -> Result<(String, Guard), String> {
    let name = format!("trommel-test-{}-{}", std::process::id(), moment());
    // Before the container: so there is no moment in which it has nobody to remove it.
    let guard = watchdog::remove_container(&name).map_err(|e| format!("no shell: {e}"))?;
    let image = GenericImage::new(IMAGE, TAG)
        .with_wait_for(WaitFor::message_on_stdout("Ready."))
        .with_container_name(&name)
        .with_mapped_port(0, PORT.tcp())
        .with_host_config_modifier(|host| {
            let bindings = host
                .port_bindings
                .iter_mut()
                .flat_map(|all| all.values_mut());
            for binding in bindings.flatten().flatten() {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        })
        .with_env_var("SERVICES", "s3,sqs,dynamodb")
        .with_startup_timeout(READY_WITHIN);
    let started = tokio::time::timeout(PULL_WITHIN, image.start()).await;
    let container = match started {
        Ok(Ok(container)) => container,
        Ok(Err(error)) => return Err(first_line(&error.to_string())),
        Err(_) => return Err("the image was not there within five minutes".to_owned()),
    };
    let port = container.get_host_port_ipv4(PORT.tcp()).await;
    let port = port.map_err(|e| first_line(&e.to_string()))?;
    // The guard removes it. Its own destructor needs the runtime it was started on, and nobody drops
    // what a whole test process shares.
    std::mem::forget(container);
    Ok((format!("http://127.0.0.1:{port}"), guard))
}

/// Tells two processes apart that had the same number.
fn moment() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
