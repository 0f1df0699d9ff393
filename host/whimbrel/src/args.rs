//! What the user typed. All of daprd's flags are here, so that its command lines work; what means nothing in this host is
//! named once in the log.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use whimbrel_api::{AppProtocol, Probe, ProbeError};

/// The shortest interval of `--hot-reload-reconcile-interval`.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);

/// How often the app is asked for its health, seconds, unless something else is said (pubsub-behaviour 6.9).
const PROBE_INTERVAL_SECONDS: u64 = 5;

/// How long it may take to answer, milliseconds.
const PROBE_TIMEOUT_MILLIS: u64 = 500;

/// How many failures make it ill.
const PROBE_THRESHOLD: u32 = 3;

use crate::documents::{CompletionsArguments, SchemaArguments};
use crate::publish::PublishArguments;
use crate::reload::LOOK_EVERY;
use crate::subscribe::SubscribeArguments;

/// A pub/sub host whose broker adapters and handlers are sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the host, with the flags of daprd.
    Run(Box<RunArguments>),
    /// Validates resources without running them: all that is wrong, at once.
    Check(CheckArguments),
    /// Shows plugins: which there are, and what one is, takes and could reach.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Judges an adapter against a live broker: which promises of the contract it keeps.
    Conform(ConformArguments),
    /// Prints the JSON Schema of a kind of resource, for editors and checks; without a kind, lists them.
    Schema(SchemaArguments),
    /// Prints the HTTP API as an OpenAPI document (3.1), which the host serves at /v1.0/openapi.json.
    Openapi,
    /// Publishes to a topic, as an app of a running host.
    Publish(PublishArguments),
    /// Tails a topic: each event with its attempt and its fate, as a subscriber of its own.
    Subscribe(SubscribeArguments),
    /// Prints a shell's completions of this program's commands.
    Completions(CompletionsArguments),
    /// Prints the manual page (roff): `whimbrel man | man -l -`.
    Man,
}

/// The flags of `whimbrel check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArguments {
    /// Folders with resources, as `--resources-path` names them.
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    /// The app the host would stand beside. Without it the resources are validated for every app that their scopes name.
    #[arg(long)]
    pub app_id: Option<String>,
    /// The namespace in place of the environment's `NAMESPACE`.
    #[arg(long)]
    pub namespace: Option<String>,
    /// A folder with plugins, looked in first. May be given several times.
    #[arg(long)]
    pub plugins: Vec<PathBuf>,
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// The flags of `whimbrel conform`.
#[derive(Debug, Clone, clap::Args)]
pub struct ConformArguments {
    /// The adapter, a `.wasm` file.
    pub plugin: PathBuf,
    /// A file with two documents: the `Component` as users write it, and a `Conformance` that says how to reach, start
    /// and stop its broker.
    #[arg(long)]
    pub config: PathBuf,
    /// Also the checks that break the network, the broker and its clients. They take minutes.
    #[arg(long)]
    pub faults: bool,
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Only these checks: ids such as B9, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// What the faults are drawn with, to repeat a run: the report tells it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// What the host and the adapter log, on the standard error: off, error, warn, info, debug. Checks make things fail.
    #[arg(long, default_value = "off")]
    pub log_level: String,
}

/// What can be asked about plugins.
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// Lists the adapters that resources can name, where each was found, and which hide others.
    List {
        /// A folder with plugins, looked in first. May be given several times.
        #[arg(long)]
        plugins: Vec<PathBuf>,
    },
    /// Prints an adapter's reference page (Markdown), made from its plugin.yaml.
    Page {
        /// A `.wasm` file, a `plugin.yaml`, or a type such as pubsub.redis.
        plugin: PathBuf,
        /// A folder with plugins, looked in first. May be given several times.
        #[arg(long)]
        plugins: Vec<PathBuf>,
    },
    /// Shows a plugin: its type, its features, its settings, and what it imports and so could reach.
    Inspect {
        /// A `.wasm` file, or a type such as pubsub.redis.
        plugin: PathBuf,
        /// A folder with plugins, looked in first. May be given several times.
        #[arg(long)]
        plugins: Vec<PathBuf>,
    },
}

/// The flags of `whimbrel run`.
#[derive(Debug, Clone, clap::Args)]
// As with Go's flags, of one that is given twice the last counts.
#[command(disable_help_subcommand = true, version, args_override_self = true)]
pub struct RunArguments {
    /// Prints the version, as daprd's flag of this name does.
    #[arg(long, action = ArgAction::Version)]
    pub build_info: Option<bool>,
    /// Waits until the host at --dapr-http-port of this machine can publish, and ends.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub wait: bool,
    /// The app this host stands beside: its identity for scopes and its consumer group.
    #[arg(long)]
    pub app_id: Option<String>,
    /// The port the app listens on. Without it nothing is delivered over HTTP.
    #[arg(long)]
    pub app_port: Option<u16>,
    /// The protocol the app speaks: http, https (its certificate is not looked at) or h2c.
    #[arg(long, default_value = "http")]
    pub app_protocol: String,
    /// The older way to say that the app speaks TLS: http becomes https.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub app_ssl: bool,
    /// The address the app listens on.
    #[arg(long, default_value = "127.0.0.1")]
    pub app_channel_address: String,
    /// Deliveries to the app at the same time; -1: no limit.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub app_max_concurrency: i64,
    /// A line in the log for each call of the API, whatever the configuration says.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_api_logging: Option<bool>,
    /// Whether the app is asked for its health. While it is ill its subscriptions rest.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub enable_app_health_check: bool,
    /// The path that is asked; 2xx is the good answer.
    #[arg(long, default_value = "/healthz")]
    pub app_health_check_path: String,
    /// How often, seconds; 0: 5.
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    pub app_health_probe_interval: i64,
    /// How long the app may take to answer, milliseconds, no longer than the interval; 0: 500.
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    pub app_health_probe_timeout: i64,
    /// Failures in a row that make the app ill; 0: 3.
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    pub app_health_threshold: i32,
    /// The port of the HTTP API; 0: any free one.
    #[arg(long, default_value_t = 3500)]
    pub dapr_http_port: u16,
    /// Addresses to listen on, separated by commas; none: all.
    #[arg(long, default_value = "")]
    pub dapr_listen_addresses: String,
    /// A file with a `Configuration` (YAML). May be given several times: what a later one says replaces what an earlier one said.
    #[arg(long)]
    pub config: Vec<PathBuf>,
    /// A folder with resources (YAML). May be given several times.
    #[arg(long, alias = "components-path")]
    pub resources_path: Vec<PathBuf>,
    /// A folder with plugins (`pubsub.redis.wasm`), looked in first. May be given several times.
    #[arg(long)]
    pub plugins: Vec<PathBuf>,
    /// The largest request body: `4Mi`, a number of bytes; 0: no limit.
    #[arg(long, default_value = "4Mi", value_parser = quantity)]
    pub max_body_size: u64,
    /// The same in megabytes, as daprd called it before.
    #[arg(long)]
    pub dapr_http_max_request_size: Option<u64>,
    /// The largest block of request headers: `4Ki`, a number of bytes.
    #[arg(long, default_value = "4Ki", value_parser = quantity)]
    pub read_buffer_size: u64,
    /// The same in kilobytes, as daprd called it before.
    #[arg(long)]
    pub dapr_http_read_buffer_size: Option<u64>,
    /// How long stopping may take, seconds; 0: as long as it takes.
    #[arg(long, default_value_t = 5, allow_negative_numbers = true)]
    pub dapr_graceful_shutdown_seconds: i64,
    /// How long publishing goes on after the subscriptions have stopped, before the host stops: `30s`.
    #[arg(long, value_parser = go_duration)]
    pub dapr_block_shutdown_duration: Option<Duration>,
    /// How often changed files are looked for that the system does not tell of: `30s`; 0: every 5 seconds.
    #[arg(long, default_value = "0", hide_default_value = true, value_parser = go_duration)]
    pub hot_reload_reconcile_interval: Duration,
    /// Web pages that may call the API from a browser, separated by commas; `*`: all. None: browsers are told nothing.
    #[arg(long, default_value = "")]
    pub allowed_origins: String,
    /// A port with health and metadata alone, for whoever asks; 0: any free one.
    #[arg(long)]
    pub dapr_public_port: Option<u16>,
    /// The address of that port; none: all.
    #[arg(long, default_value = "")]
    pub dapr_public_listen_address: String,
    /// debug, info, warn, error.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// One JSON object a line.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub log_as_json: bool,
    /// Endpoints of the app that are not asked at start: `subscribe`.
    #[arg(long, value_delimiter = ',')]
    pub disable_init_endpoints: Vec<String>,
    /// Whether metrics are served.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub enable_metrics: bool,
    /// The port of the metrics, path `/metrics`; 0: any free one. Without it 9090, if that is free.
    #[arg(long)]
    pub metrics_port: Option<u16>,
    /// The address the metrics are served on.
    #[arg(long, default_value = "0.0.0.0")]
    pub metrics_listen_address: String,
    /// Flags of daprd that mean nothing here, or not in this version.
    #[command(flatten)]
    pub ignored: Ignored,
}

/// A list of flags that are taken and do nothing: those that are there or not, and those with a value.
macro_rules! ignored {
    (switches: $($switch:ident),*; values: $($name:ident),*;) => {
        /// daprd's flags that mean nothing in this host, or not in this version.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct Ignored {
            // As Go's flags have it, a switch takes a value only behind `=`: the next word is the next flag's.
            $(
                #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
                $switch: Option<OsString>,
            )*
            $(
                #[arg(long, hide = true, allow_hyphen_values = true)]
                $name: Option<OsString>,
            )*
        }

        impl Ignored {
            /// Those that were given.
            #[must_use]
            pub fn given(&self) -> Vec<String> {
                let all = [
                    $((stringify!($switch), self.$switch.is_some()),)*
                    $((stringify!($name), self.$name.is_some()),)*
                ];
                let flag = |name: &str| format!("--{}", name.replace('_', "-"));
                all.into_iter().filter(|(_, given)| *given).map(|(name, _)| flag(name)).collect()
            }
        }
    };
}

ignored!(
    switches: disable_builtin_k8s_secret_store, enable_mtls, enable_profiling;
    values: actors_disseminate_timeout, actors_service, app_binding_options_timeout, control_plane_address, control_plane_namespace, control_plane_trust_domain, dapr_grpc_port, dapr_internal_grpc_listen_address, dapr_internal_grpc_port, log_file, mode, placement_host_address, profile_port, reminders_service, scheduler_host_address, scheduler_job_streams, sentry_address, sentry_request_jwt_audiences, unix_domain_socket;
);

impl RunArguments {
    /// What the app speaks; none: no such protocol, or one that is not spoken here.
    #[must_use]
    pub fn protocol(&self) -> Option<AppProtocol> {
        let protocol = AppProtocol::named(&self.app_protocol)?;
        Some(if self.app_ssl && protocol == AppProtocol::Http { AppProtocol::Https } else { protocol })
    }

    /// The largest body in bytes; none: no limit. The older flag wins where it was given.
    #[must_use]
    pub fn body_bytes_max(&self) -> Option<u64> {
        let bytes = self.dapr_http_max_request_size.map_or(self.max_body_size, |megabytes| megabytes << 20);
        (bytes > 0).then_some(bytes)
    }

    /// The largest block of headers in bytes.
    #[must_use]
    pub fn header_bytes_max(&self) -> u64 {
        self.dapr_http_read_buffer_size.map_or(self.read_buffer_size, |kilobytes| kilobytes << 10)
    }

    /// How the app's health is asked for; none: not at all. What is not positive means the default (pubsub-behaviour 6.9).
    ///
    /// # Errors
    /// A value is out of its bounds.
    pub fn probe(&self) -> Result<Option<Probe>, ProbeError> {
        if !self.enable_app_health_check {
            return Ok(None);
        }
        let interval = Duration::from_secs(positive(self.app_health_probe_interval).unwrap_or(PROBE_INTERVAL_SECONDS));
        let timeout = Duration::from_millis(positive(self.app_health_probe_timeout).unwrap_or(PROBE_TIMEOUT_MILLIS));
        let threshold = positive(self.app_health_threshold.into()).unwrap_or(PROBE_THRESHOLD);
        Probe::new(&self.app_health_check_path, interval, timeout, threshold).map(Some)
    }

    /// The flag of a port of the host that is the app's port, too.
    #[must_use]
    pub fn conflict(&self) -> Option<&'static str> {
        let ports = [
            ("--dapr-http-port", Some(self.dapr_http_port)),
            ("--dapr-public-port", self.dapr_public_port),
            ("--metrics-port", self.metrics_port),
        ];
        let is_apps =
            |(_, port): &&(&str, Option<u16>)| port.is_some_and(|port| port != 0 && Some(port) == self.app_port);
        ports.iter().find(is_apps).map(|(flag, _)| *flag)
    }

    /// How often files are looked at, told or not. No more often than is good for the disk.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        let asked = self.hot_reload_reconcile_interval;
        if asked.is_zero() { LOOK_EVERY } else { asked.max(LOOK_EVERY_MIN) }
    }

    /// How long stopping may take; none: no limit. Negative means the default, as for daprd.
    #[must_use]
    pub fn shutdown_wait(&self) -> Option<Duration> {
        match u64::try_from(self.dapr_graceful_shutdown_seconds) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => Some(Duration::from_secs(5)),
        }
    }
}

/// What was given, if it is positive.
fn positive<T: TryFrom<i64>>(given: i64) -> Option<T> {
    Some(given).filter(|given| *given > 0).and_then(|given| T::try_from(given).ok())
}

/// A duration as Go writes it, not negative.
fn go_duration(text: &str) -> Result<Duration, String> {
    whimbrel_resources::duration(text).ok_or_else(|| format!("{text} is not a duration such as 30s or 1m30s"))
}

/// A Kubernetes quantity of bytes: a number with `Ki`, `Mi`, `Gi`, `k`, `M`, `G` or nothing behind.
fn quantity(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        _ => None,
    };
    let bytes =
        number.parse::<u64>().ok().zip(factor).and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("{text} is not a number of bytes such as 4Mi"))
}

/// A program called `daprd`, by a link or a copy, is `whimbrel run`.
pub fn as_called(mut arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let program = arguments.next();
    let is_daprd = program.as_ref().is_some_and(|path| Path::new(path).file_stem().is_some_and(|name| name == "daprd"));
    program.into_iter().chain(is_daprd.then(|| OsString::from("run"))).chain(arguments)
}

/// Go programs take `-flag` for `--flag`; command lines written for daprd may have either.
pub fn double_dashes(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| {
        let text = argument.to_string_lossy();
        let single = text.len() > 2 && text.starts_with('-') && text.as_bytes()[1].is_ascii_lowercase();
        if single { OsString::from(format!("-{text}")) } else { argument }
    })
}

#[cfg(test)]
mod tests;
