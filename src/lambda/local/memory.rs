//! How much memory an environment's processes hold: the leader and all that descend from it.
//!
//! Pages that several of them share count for each. Elsewhere than on Linux nothing is measured, so no limit is kept.

/// More processes than this in one environment are not looked at; a worker has one.
#[cfg(target_os = "linux")]
const PROCESSES_MAX: usize = 256;

/// Resident memory in KiB; 0 when the process is gone.
#[cfg(target_os = "linux")]
pub(super) fn resident_kib(leader: u32) -> u64 {
    let mut processes = vec![leader];
    let mut total = 0;
    let mut next = 0;
    while let Some(process) = processes.get(next).copied() {
        next += 1;
        total += resident_kib_of(process);
        let room = PROCESSES_MAX - processes.len();
        processes.extend(children(process).into_iter().take(room));
    }
    total
}

/// See the Linux version.
#[cfg(not(target_os = "linux"))]
pub(super) fn resident_kib(_leader: u32) -> u64 {
    0
}

#[cfg(target_os = "linux")]
fn resident_kib_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    resident
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The children that any thread of the process started. Kernels without this list show none.
#[cfg(target_os = "linux")]
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .map(|thread| std::fs::read_to_string(thread.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|child| child.parse().ok())
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_memory_and_a_missing_one_none() {
        assert!(resident_kib(std::process::id()) > 500);
        assert_eq!(resident_kib(u32::MAX), 0);
    }

    #[test]
    fn children_are_found_whichever_thread_started_them() {
        let start = || {
            std::process::Command::new("sleep")
                .arg("60")
                .spawn()
                .expect("sleep is on every Linux")
        };
        let mut child = std::thread::spawn(start)
            .join()
            .expect("spawning does not panic");
        let from_main = children(std::process::id());
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        // The thread that started it is gone, so Linux has given it to another one.
        assert!(from_main.contains(&child.id()), "{from_main:?}");
    }
}
