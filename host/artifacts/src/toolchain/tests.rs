use super::*;

fn line(toolchain: &Toolchain) -> (String, Vec<String>, Option<String>) {
    let command =
        toolchain.command(Path::new("/checkout"), &["whimbrel-redis".to_owned()], PROFILE, Path::new("/target"));
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let flags = command.get_envs().find(|(name, _)| *name == "RUSTFLAGS").and_then(|(_, value)| value);
    (
        command.get_program().to_string_lossy().into_owned(),
        args,
        flags.map(|flags| flags.to_string_lossy().into_owned()),
    )
}

/// The way that cannot be run on a machine without the target, up to its command line.
#[test]
fn an_installed_target_is_built_with_the_toolchain_in_use() {
    let (program, args, flags) = line(&Toolchain::Installed { cargo: "/toolchain/cargo".into() });
    assert_eq!(program, "/toolchain/cargo");
    assert_eq!(
        args,
        ["build", "--target", "wasm32-wasip2", "--profile", "guest", "--target-dir", "/target", "-p", "whimbrel-redis"]
    );
    assert_eq!(flags.as_deref(), Some("-Clinker=rust-lld -Clinker-flavor=wasm-ld"));
}

#[test]
fn debian_builds_the_standard_library_from_source() {
    let toolchain = Toolchain::FromSource {
        bin: "/usr/bin".into(),
        linker: "wasm-ld-22".into(),
        libc: "/usr/lib/wasm32-wasi".into(),
    };
    let (program, args, flags) = line(&toolchain);
    assert_eq!(program, "/usr/bin/cargo");
    assert_eq!(&args[..2], ["build", "-Zbuild-std=std,panic_abort"]);
    assert_eq!(flags.as_deref(), Some("-L/usr/lib/wasm32-wasi -Clinker=/usr/bin/wasm-ld-22 -Clinker-flavor=wasm-ld"));
}

#[test]
fn where_nothing_is_there_the_error_says_what_to_run() {
    let error = Toolchain::debian(Path::new("/nowhere")).context(REMEDY).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("rustup target add wasm32-wasip2"), "{text}");
    assert!(text.contains("apt-get install -y rustc-web cargo-web rust-web-src lld-22 wasi-libc"), "{text}");
    assert!(text.contains("rustc-web"), "{text}");
}
