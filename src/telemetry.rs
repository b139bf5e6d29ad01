//! What the operator sees: the names of all metrics, and how logs are written.
//!
//! No label and no log field ever names a tenant or holds personal data: both are kept longer, and read by more people,
//! than any record.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Calls that ended; labels `method`, `code`.
pub const CALLS: &str = "callvault_calls_total";
/// How long they took, seconds; label `method`.
pub const CALL_SECONDS: &str = "callvault_call_seconds";
/// Calls that are running; label `method`.
pub const CALLS_RUNNING: &str = "callvault_calls_running";
/// Connections that are open.
pub const CONNECTIONS: &str = "callvault_connections";
/// Connections that were not taken; label `reason`: `full`, `principal`, `strangers`, `accept`.
pub const CONNECTIONS_REFUSED: &str = "callvault_connections_refused_total";
/// Connections that the server ended without being asked; label `reason`: `flood`, `greeting`, `lingering`.
pub const CONNECTIONS_CUT: &str = "callvault_connections_cut_total";
/// Calls that were refused for load; label `reason`: the error's.
pub const CALLS_REFUSED: &str = "callvault_calls_refused_total";
/// Calls that panicked: each is a fault of this program.
pub const PANICS: &str = "callvault_panics_total";
/// Times that certificates were read again; label `outcome`: `ok`, `failed`.
pub const CERTIFICATES_READ: &str = "callvault_certificates_read_total";
/// Times that principals, issuers and policies were read again; label `outcome`: `ok`, `failed`.
pub const CONFIGURATION_READ: &str = "callvault_configuration_read_total";
/// Times that the keys of token issuers were looked for; label `outcome`: `ok`, `failed`.
pub const ISSUER_KEYS_READ: &str = "callvault_issuer_keys_read_total";
/// TLS handshakes that failed; label `reason`: `timeout`, `crowded`, `certificate`, `protocol`, `io`.
pub const HANDSHAKES_FAILED: &str = "callvault_handshakes_failed_total";
/// How long ago the root provider last gave the key that is open, seconds.
pub const ROOT_SILENCE: &str = "callvault_root_silence_seconds";

/// Bounds of the histogram of [`CALL_SECONDS`].
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
];

/// Collects metrics in this process from now on, and returns what renders them.
///
/// # Errors
/// [`TelemetryError`] if something else collects them already.
pub fn collect_metrics() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut known = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*known {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(CALL_SECONDS.to_owned()), SECONDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken)?;
    describe();
    *known = Some(handle.clone());
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(CALLS, "calls that ended, by method and code");
    metrics::describe_histogram!(
        CALL_SECONDS,
        metrics::Unit::Seconds,
        "duration of calls, by method"
    );
    metrics::describe_gauge!(CALLS_RUNNING, "calls that are running, by method");
    metrics::describe_gauge!(CONNECTIONS, "connections that are open");
    metrics::describe_counter!(CONNECTIONS_REFUSED, "connections that were not taken, by reason");
    metrics::describe_counter!(
        CONNECTIONS_CUT,
        "connections that the server ended unasked, by reason"
    );
    metrics::describe_counter!(CALLS_REFUSED, "calls that were refused for load, by reason");
    metrics::describe_counter!(PANICS, "calls that panicked");
    metrics::describe_counter!(
        CONFIGURATION_READ,
        "times that principals, issuers and policies were read again, by outcome"
    );
    metrics::describe_counter!(
        ISSUER_KEYS_READ,
        "times that the keys of token issuers were looked for, by outcome"
    );
    metrics::describe_counter!(
        CERTIFICATES_READ,
        "times that certificates were read again, by outcome"
    );
    metrics::describe_gauge!(
        ROOT_SILENCE,
        metrics::Unit::Seconds,
        "since the root provider last gave the key that is open"
    );
    metrics::describe_counter!(HANDSHAKES_FAILED, "TLS handshakes that failed, by reason");
}

/// Writes logs to standard error as `log` says.
///
/// # Errors
/// [`TelemetryError`] if the level cannot be parsed or something else writes logs already.
pub fn write_logs(log: &Log) -> Result<(), TelemetryError> {
    let filter: EnvFilter = log.level.parse().map_err(|_| TelemetryError::Level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match log.format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => subscriber.try_init(),
    };
    set.map_err(|_| TelemetryError::Taken)
}

/// Logs panics by their place alone: what they say may quote data. Without this they are written out in full.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not one.
    #[error("log.level must be error, warn, info, debug or trace, or directives")]
    Level,
    /// This process already has a collector.
    #[error("metrics or logs are already collected by something else in this process")]
    Taken,
    /// The histogram's bounds are wrong.
    #[error("metrics cannot be collected")]
    Metrics(#[from] BuildError),
}
