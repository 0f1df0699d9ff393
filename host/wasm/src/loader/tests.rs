use super::*;

fn read(bytes: &[u8]) -> Result<Plugin, LoadError> {
    Plugin::bundled(Path::new("x.wasm"), bytes.to_vec())
}

/// The shortest component there is (component-model Binary.md: magic, version 0x0d, layer 1).
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The shortest core module (core specification, section 5.5.16).
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[test]
fn what_is_no_component_is_refused_with_its_reason() {
    assert!(matches!(read(EMPTY_MODULE), Err(LoadError::CoreModule { .. })));
    assert!(matches!(read(b"#!/bin/sh"), Err(LoadError::Invalid { .. })));
    assert!(matches!(read(&EMPTY_COMPONENT[..6]), Err(LoadError::Invalid { .. })));
    let error = read(EMPTY_MODULE).unwrap_err().to_string();
    assert!(error.contains("x.wasm") && error.contains("core WebAssembly module"), "{error}");
}

#[test]
fn the_description_is_found_inside() {
    let mut component = EMPTY_COMPONENT.to_vec();
    let section = [&[15][..], DESCRIPTION_SECTION.as_bytes(), b"type: x"].concat();
    component.extend([0, u8::try_from(section.len()).unwrap()]);
    component.extend(section);
    assert_eq!(read(&component).unwrap().description.as_deref(), Some("type: x"));
    assert_eq!(read(EMPTY_COMPONENT).unwrap().description, None);
}

#[test]
fn compiled_code_that_was_changed_is_not_loaded() {
    let folder = std::env::temp_dir().join(format!("whimbrel-loader-{:x}", fastrand::u64(..)));
    let loader = Loader::new(Engines::new().unwrap(), Some(folder.clone()));
    let plugin = read(EMPTY_COMPONENT).unwrap();
    loader.adapter(&plugin).unwrap();
    let file = folder.join(key(&loader.engines.adapters, EMPTY_COMPONENT));
    assert!(cached(&loader.engines.adapters, &file).is_some(), "the second start compiles nothing");
    let mut code = fs::read(&file).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    fs::write(&file, code).unwrap();
    assert!(cached(&loader.engines.adapters, &file).is_none(), "a changed file must not be run");
    loader.adapter(&plugin).unwrap();
    assert!(cached(&loader.engines.adapters, &file).is_some(), "it is made anew");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_that_others_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join(format!("whimbrel-loader-{:x}", fastrand::u64(..)));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(private(&folder).is_err());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(private(&folder), Ok(()));
    fs::remove_dir(folder).unwrap();
}
