//! Order and precedence over several files and folders, speed, and robustness. What one file comes to is in the pairs
//! of `tests/valid` and `tests/invalid`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{load, scoped_apps, snapshot, sound, survey};
use crate::folder;
use crate::problem::Problems;
use crate::snapshot::Snapshot;
use crate::surroundings::Surroundings;

pub(crate) fn read(text: &str) -> Result<Snapshot, Problems> {
    let mut problems = Vec::new();
    let documents = folder::parse(Path::new("f.yaml"), text.as_bytes(), &mut problems);
    sound(snapshot(&documents, &["me"], &Surroundings::default(), problems))
}

fn component(name: &str, kind: &str) -> String {
    format!("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {kind}\n---\n")
}

fn subscription(name: &str, topic: &str, route: &str) -> String {
    format!(
        "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {{name: {name}}}\n\
         spec: {{pubsubname: bus, topic: {topic}, routes: {{default: {route}}}}}\n---\n"
    )
}

fn routes(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.subscriptions.iter().filter_map(|subscription| subscription.default_route.as_deref()).collect()
}

#[test]
fn folders_count_in_the_order_given() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let write =
        |index: usize, name: &str, text: &str| fs::write(folders[index].path().join(name), text).expect("written");
    write(0, "b.yaml", &subscription("s1", "t", "/first-folder-b"));
    write(0, "a.yaml", &subscription("s2", "u", "/first-folder-a"));
    write(1, "a.yaml", &(subscription("s3", "t", "/loses") + &subscription("s4", "v", "/second-folder")));
    let paths: Vec<_> = folders.iter().map(|folder| folder.path().to_path_buf()).collect();
    let loaded = load(&paths, &["me"], &Surroundings::default()).expect("sound");
    assert_eq!(routes(&loaded), ["/first-folder-a", "/first-folder-b", "/second-folder"]);
    assert_eq!(loaded.warnings.len(), 1);
    let reversed: Vec<_> = paths.iter().rev().cloned().collect();
    assert_eq!(
        routes(&load(&reversed, &["me"], &Surroundings::default()).expect("sound")),
        ["/loses", "/second-folder", "/first-folder-a"]
    );
}

#[test]
fn nothing_declared_is_sound() {
    let loaded = load(&[], &[], &Surroundings::default()).expect("sound");
    assert!(loaded.components.is_empty() && loaded.warnings.is_empty());
}

/// Whoever looks sees what is sound beside what is not, and whose resources there are.
#[test]
fn a_survey_shows_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let scoped = component("other", "pubsub.redis").replace("---", "scopes: [b, a, b]\n---");
    let text = component("bus", "pubsub.redis") + &component("odd", "pubsub.") + &scoped;
    fs::write(folder.path().join("a.yaml"), text).expect("written");
    let paths = [folder.path().to_path_buf()];
    let (found, problems) = survey(&paths, &["me"], &Surroundings::default());
    assert_eq!((found.components.len(), problems.0.len(), problems.has_errors()), (1, 1, true), "{problems}");
    assert_eq!(scoped_apps(&paths), ["b", "a"]);
}

#[test]
fn a_missing_folder_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let problems = load(&[folder.path().join("gone")], &["me"], &Surroundings::default()).expect_err("refused");
    assert!(problems.to_string().contains("cannot be read"), "{problems}");
}

#[test]
fn a_name_given_again_replaces_and_moves() {
    let text = subscription("s", "a", "/a") + &subscription("r", "b", "/b") + &subscription("s", "c", "/c");
    assert_eq!(routes(&read(&text).expect("sound")), ["/b", "/c"]);
}

#[test]
fn a_thousand_components_load_at_once() {
    const COMPONENTS: usize = 1_000;
    /// Far more than it takes, far less than anything quadratic would.
    const LIMIT: Duration = Duration::from_secs(10);
    let folder = tempfile::tempdir().expect("a folder");
    for index in 0..COMPONENTS {
        let text =
            component(&format!("bus {index}"), "pubsub.in-memory") + &subscription(&format!("s{index}"), "t", "/r");
        fs::write(folder.path().join(format!("{index}.yaml")), text).expect("written");
    }
    let began = Instant::now();
    let loaded = load(&[folder.path().to_path_buf()], &["me"], &Surroundings::default()).expect("sound");
    let took = began.elapsed();
    assert_eq!(loaded.components.len(), COMPONENTS);
    assert_eq!(loaded.subscriptions.len(), 1);
    assert!(took < LIMIT, "{took:?}");
    println!("{COMPONENTS} components in {took:?}");
}

/// One of everything, to be damaged.
fn one_of_everything() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid");
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("the pairs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            writeln!(text, "{}\n---", fs::read_to_string(path).expect("text")).expect("written");
        }
    }
    text
}

#[test]
fn nothing_panics_on_truncated_resources() {
    let text = one_of_everything();
    assert!(text.len() > 1_000, "there is something to damage");
    let bytes = text.as_bytes();
    for end in (0..bytes.len()).step_by(37) {
        let mut problems = Vec::new();
        let documents = folder::parse(Path::new("f.yaml"), &bytes[..end], &mut problems);
        drop(snapshot(&documents, &["me"], &Surroundings::default(), problems));
    }
}

#[test]
fn nothing_panics_on_damaged_resources() {
    let text = one_of_everything();
    let documents: Vec<&str> = text.split("\n---\n").collect();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut sound, mut refused) = (0, 0);
    for _ in 0..3_000 * crate::test_scale() {
        let mut bytes = random.choice(&documents).expect("a document").as_bytes().to_vec();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(..bytes.len().max(1)).min(bytes.len());
            match random.u8(..3) {
                0 => bytes.insert(at, *random.choice(b":-[]{}'\"\n #&*|>x0/".as_slice()).expect("a byte")),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = random.u8(..128),
                _ => {}
            }
        }
        let mut problems = Vec::new();
        let damaged = folder::parse(Path::new("f.yaml"), &bytes, &mut problems);
        match super::sound(snapshot(&damaged, &["me"], &Surroundings::default(), problems)) {
            Ok(_) => sound += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(sound > 0 && refused > 0, "{sound} sound, {refused} refused");
}

#[test]
fn nothing_panics_on_random_bytes() {
    let mut random = fastrand::Rng::with_seed(13);
    for _ in 0..2_000 * crate::test_scale() {
        let bytes: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
        let mut problems = Vec::new();
        let documents = folder::parse(Path::new("f.yaml"), &bytes, &mut problems);
        assert!(
            sound(snapshot(&documents, &["me"], &Surroundings::default(), problems))
                .is_ok_and(|loaded| loaded.components.is_empty())
        );
    }
}
