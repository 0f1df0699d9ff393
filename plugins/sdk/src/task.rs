//! Tasks that outlive the call that started them: connection loops, feeders. All tasks of a component share one thread.

use std::future::Future;

/// Starts a task. It runs while the host is inside the component, until it ends by itself.
///
/// Never hold a `RefCell` borrow across an await: a panic takes the whole component.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    #[cfg(target_family = "wasm")]
    wit_bindgen::spawn_local(task);
    #[cfg(not(target_family = "wasm"))]
    drop(tokio::task::spawn_local(task));
}
