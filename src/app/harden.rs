//! Keys stay in memory: no core dump, and no swapping where the system allows it.
//!
//! What this does not do: root, a debugger or a suspended virtual machine see all memory of a process.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Turns core dumps off and locks memory, as far as the system lets this process; says what it could not do.
///
/// Memory is locked only if the limit is (or may be made) unlimited: below a limit, the lock would turn a later allocation
/// into a crash.
pub fn harden() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps stay on; a crash could write keys to disk");
    }
    if !is_unlimited(Resource::Memlock) {
        tracing::warn!(
            "memory is not locked, keys could be swapped to disk; set LimitMEMLOCK=infinity or turn swap off"
        );
        return;
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => tracing::debug!("memory is locked"),
        Err(error) => tracing::warn!(%error, "memory is not locked; keys could be swapped to disk"),
    }
}

/// Whether a limit is no limit, once it is raised as far as it may be.
fn is_unlimited(resource: Resource) -> bool {
    let limit = getrlimit(resource);
    if limit.current.is_some() && limit.maximum.is_none() {
        let _ = setrlimit(
            resource,
            Rlimit {
                current: None,
                maximum: None,
            },
        );
    }
    getrlimit(resource).current.is_none()
}
