//! Named steps of publish and settle, where a test may stop the process: an acknowledged message must survive that at each
//! of them. Without a hook a step costs one load.

use std::sync::OnceLock;

static HOOK: OnceLock<fn(&'static str)> = OnceLock::new();

/// Calls a function at each step from now on. The first one set stays.
pub fn on_step(hook: fn(&'static str)) {
    HOOK.set(hook).ok();
}

/// Passes a step. The component host has steps of its own: those of replacing an adapter.
pub fn step(name: &'static str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}
