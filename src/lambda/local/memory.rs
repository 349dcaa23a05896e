//! How much memory an environment's processes hold: all that descend from its supervisor.
//!
//! Pages that several of them share count for each. Elsewhere than on Linux nothing is measured, so no limit is kept.

use rustix::process::Pid;

use crate::process::tree;

/// More processes than this in one environment are not looked at; a worker has one.
const PROCESSES_MAX: usize = 256;

/// Resident memory in KiB of all that descends from the process; 0 when it is gone.
pub(super) fn descendants_kib(of: Pid) -> u64 {
    let processes = tree::descendants(of).into_iter().take(PROCESSES_MAX);
    processes.map(resident_kib).sum()
}

/// Resident memory in KiB; 0 when the process is gone.
pub(super) fn resident_kib(process: Pid) -> u64 {
    let status = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_memory_and_a_missing_one_none() {
        assert!(resident_kib(rustix::process::getpid()) > 500);
        let missing = Pid::from_raw(i32::MAX).expect("it is no zero");
        assert_eq!(resident_kib(missing), 0);
        assert_eq!(descendants_kib(missing), 0);
    }
}
