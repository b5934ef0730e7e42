//! Catches the signals that ask a run to stop. A second one of its kind ends the program at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ctxtune_pipeline::{Exit, Signals};

/// Begins to catch SIGINT and SIGTERM, and makes a file over the size limit an error, not a death.
pub fn catch() -> std::io::Result<Signals> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let signals = Signals::default();
    register(SIGINT, Exit::Interrupted, &signals.interrupt)?;
    register(SIGTERM, Exit::Terminated, &signals.terminate)?;
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(signals)
}

/// Begins to take the end of the terminal for SIGTERM, for a command whose end costs money to miss. Not where
/// whoever started it has said that it outlives the terminal (`nohup`), nor where that cannot be known.
pub fn catch_hang_up(signals: &Signals) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    if !ignores_hang_up() {
        register(signal_hook::consts::SIGHUP, Exit::Terminated, &signals.terminate)?;
    }
    Ok(())
}

/// Lets `signal` raise `flag`, and end the process where that is up already.
fn register(signal: i32, exit: Exit, flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    signal_hook::flag::register_conditional_shutdown(signal, exit as i32, Arc::clone(flag))?;
    signal_hook::flag::register(signal, Arc::clone(flag)).map(|_| ())
}

/// Whether this process was started to ignore SIGHUP, which the system tells as the lowest bit of a mask.
#[cfg(target_os = "linux")]
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // What cannot be known is left as it was.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}
