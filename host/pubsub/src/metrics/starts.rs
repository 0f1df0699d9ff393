//! What is loaded: components, by how their starts end, and `Resiliency` resources (pubsub-behaviour, section 13.2). Counted
//! by the binary, at start and at each reload, so nothing is kept for it.

use prometheus::IntCounterVec;

use super::Metrics;
use super::families::{Family, Registered};

/// The metrics without their labels.
#[derive(Debug)]
pub(super) struct Starts {
    loaded: Family<IntCounterVec>,
    initialized: Family<IntCounterVec>,
    failed: Family<IntCounterVec>,
    resiliencies: Family<IntCounterVec>,
}

impl Starts {
    pub(super) fn new(registered: &Registered<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            loaded: registered.counter("dapr_runtime_component_loaded", "Components that were loaded.", &["app_id"])?,
            initialized: registered.counter(
                "dapr_runtime_component_init_total",
                "Components that were opened, by type.",
                &["app_id", "component"],
            )?,
            failed: registered.counter(
                "dapr_runtime_component_init_fail_total",
                "Components that could not be opened, by type and name, and how far they came.",
                &["app_id", "component", "component_name", "reason"],
            )?,
            resiliencies: registered.counter(
                "dapr_resiliency_loaded",
                "Resiliency resources that were loaded.",
                &["app_id", "name", "namespace"],
            )?,
        })
    }
}

/// How far a component came that could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// There is no adapter for it, or its resource is not what the adapter takes.
    Creation,
    /// Its adapter did not open.
    Init,
}

impl Metrics {
    /// A component of this type is open.
    pub fn component_opened(&self, kind: &str) {
        if let Some(Starts { loaded, initialized, .. }) = self.starts() {
            loaded.with(&[&self.0.app_id]).inc();
            initialized.with(&[&self.0.app_id, kind]).inc();
        }
    }

    /// A component of this type and name could not be opened.
    pub fn component_failed(&self, kind: &str, name: &str, failure: StartFailure) {
        let reason = match failure {
            StartFailure::Creation => "creation",
            StartFailure::Init => "init",
        };
        if let Some(starts) = self.starts() {
            starts.failed.with(&[&self.0.app_id, kind, name, reason]).inc();
        }
    }

    /// `Resiliency` resources of these names were taken.
    pub fn resiliencies_loaded(&self, names: &[String]) {
        for name in names {
            if let Some(starts) = self.starts() {
                starts.resiliencies.with(&[&self.0.app_id, name, &self.0.namespace]).inc();
            }
        }
    }

    fn starts(&self) -> Option<&Starts> {
        self.0.families.as_ref().map(|families| &families.starts)
    }
}
