//! What others build on stays as it was in the last release: the proto files, the OpenAPI document, the golden replies.
//!
//! `.ci/breaking` runs [`nothing_is_broken_since_the_last_release`] alone. A version that may break (another major one, or
//! minor one below 1.0) is not held to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};
use serde_json::Value;
use tempfile::TempDir;

/// The root of this repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn nothing_is_broken_since_the_last_release() {
    match since_last_release(root()) {
        Comparison::NoRelease => {
            eprintln!(
                "NOT COMPARED: no tag v* is in the history of this clone, so there is no release to compare with"
            );
        }
        Comparison::MayBreak { tag, breaks } => {
            eprintln!(
                "compared with {tag}; this version may break, and does so {} times: {breaks:#?}",
                breaks.len()
            );
        }
        Comparison::Compared { tag, breaks } => {
            assert!(breaks.is_empty(), "broken since {tag}: {breaks:#?}");
            eprintln!("compared with {tag}: nothing is broken");
        }
    }
}

/// What came of a comparison with the last release.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    NoRelease,
    Compared { tag: String, breaks: Vec<String> },
    MayBreak { tag: String, breaks: Vec<String> },
}

/// Compares the files of a repository as they lie there with those of the last tag `v*` before.
fn since_last_release(repository: &Path) -> Comparison {
    let Some(tag) = try_git(repository, &["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]) else {
        return Comparison::NoRelease;
    };
    let tag = tag.trim().to_owned();
    let mut breaks = Vec::new();
    let old = tempfile::tempdir().unwrap();
    let listed = git(
        repository,
        &["ls-tree", "-r", "--name-only", &tag, "proto", "tests/golden"],
    );
    for path in listed
        .lines()
        .filter(|path| path.ends_with(".proto") || path.ends_with(".snap"))
    {
        let to = old.path().join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, git(repository, &["show", &format!("{tag}:{path}")])).unwrap();
    }
    compare_proto(old.path(), repository, &mut breaks);
    compare_golden(old.path(), repository, &mut breaks);
    let manifest = std::fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    match compatible(&tag, &manifest) {
        true => Comparison::Compared { tag, breaks },
        false => Comparison::MayBreak { tag, breaks },
    }
}

/// Whether the version in a manifest promises to be compatible with that of a tag.
fn compatible(tag: &str, manifest: &str) -> bool {
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = \""))
        .unwrap();
    let promise = |version: &str| {
        let mut numbers = version
            .split(['.', '"', '-'])
            .map(|number| number.parse::<u64>().unwrap_or(0));
        match (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) {
            (0, minor) => (0, minor),
            (major, _) => (major, 0),
        }
    };
    promise(tag.trim_start_matches('v')) == promise(version)
}

fn try_git(repository: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "safe.directory=*",
        ])
        .args(arguments)
        .current_dir(repository)
        // A hook that runs the tests sets them, and they would name another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

#[track_caller]
fn git(repository: &Path, arguments: &[&str]) -> String {
    try_git(repository, arguments).unwrap_or_else(|| panic!("git {arguments:?}"))
}

/// The proto files below a folder, compiled.
fn compiled(folder: &Path) -> DescriptorPool {
    let proto = folder.join("proto");
    let mut files = Vec::new();
    let mut folders = vec![proto.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    DescriptorPool::from_file_descriptor_set(protox::compile(files, [proto]).unwrap()).unwrap()
}

fn compare_proto(old: &Path, new: &Path, breaks: &mut Vec<String>) {
    let (old, new) = (compiled(old), compiled(new));
    for service in old.services() {
        match new.get_service_by_name(service.full_name()) {
            Some(now) => compare_service(&service, &now, breaks),
            None => breaks.push(format!("proto: service {} is gone", service.full_name())),
        }
    }
    for message in old.all_messages() {
        match new.get_message_by_name(message.full_name()) {
            Some(now) => compare_message(&message, &now, breaks),
            None => breaks.push(format!("proto: message {} is gone", message.full_name())),
        }
    }
    for names in old.all_enums() {
        match new.get_enum_by_name(names.full_name()) {
            Some(now) => compare_enum(&names, &now, breaks),
            None => breaks.push(format!("proto: enum {} is gone", names.full_name())),
        }
    }
}

fn compare_service(old: &ServiceDescriptor, new: &ServiceDescriptor, breaks: &mut Vec<String>) {
    for method in old.methods() {
        let name = method.full_name();
        let Some(now) = new.methods().find(|now| now.name() == method.name()) else {
            breaks.push(format!("proto: rpc {name} is gone"));
            continue;
        };
        let shape = |method: &prost_reflect::MethodDescriptor| {
            let streams = (method.is_client_streaming(), method.is_server_streaming());
            (
                method.input().full_name().to_owned(),
                method.output().full_name().to_owned(),
                streams,
            )
        };
        if shape(&method) != shape(&now) {
            breaks.push(format!("proto: rpc {name} takes or gives something else"));
        }
    }
}

fn compare_message(old: &MessageDescriptor, new: &MessageDescriptor, breaks: &mut Vec<String>) {
    let shape = |field: &FieldDescriptor| {
        let kind = match field.kind() {
            Kind::Message(message) => message.full_name().to_owned(),
            Kind::Enum(names) => names.full_name().to_owned(),
            scalar => format!("{scalar:?}"),
        };
        let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
        (
            field.name().to_owned(),
            kind,
            field.cardinality(),
            field.supports_presence(),
            oneof,
        )
    };
    for field in old.fields() {
        let (name, number) = (field.full_name(), field.number());
        match new.get_field(number) {
            Some(now) if shape(&now) == shape(&field) => {}
            Some(now) => breaks.push(format!(
                "proto: field {name} = {number} is now {} {}",
                shape(&now).1,
                now.name()
            )),
            None => breaks.push(format!("proto: field {name} = {number} is gone or has another number")),
        }
    }
    let reserved_names: BTreeSet<_> = new.reserved_names().collect();
    for name in old.reserved_names().filter(|name| !reserved_names.contains(name)) {
        breaks.push(format!("proto: {} no longer reserves {name:?}", new.full_name()));
    }
    for range in old.reserved_ranges() {
        for field in new.fields().filter(|field| range.contains(&field.number())) {
            breaks.push(format!("proto: field {} uses a reserved number", field.full_name()));
        }
        let mut ranges = new.reserved_ranges();
        if !ranges.any(|now| now.start <= range.start && now.end >= range.end) {
            breaks.push(format!("proto: {} no longer reserves {range:?}", new.full_name()));
        }
    }
}

fn compare_enum(old: &EnumDescriptor, new: &EnumDescriptor, breaks: &mut Vec<String>) {
    for value in old.values() {
        let number = value.number();
        match new.values().find(|now| now.name() == value.name()) {
            Some(now) if now.number() == number => {}
            _ => breaks.push(format!(
                "proto: value {} = {number} is gone or has another number",
                value.full_name()
            )),
        }
    }
}

/// The golden files of a folder, without what insta puts before them.
fn golden_files(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder.join("tests/golden")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.splitn(3, "---\n").nth(2).unwrap().to_owned();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), text)
        })
        .collect()
}

fn compare_golden(old: &Path, new: &Path, breaks: &mut Vec<String>) {
    let (old, new) = (golden_files(old), golden_files(new));
    for (name, text) in &old {
        let Some(now) = new.get(name) else {
            breaks.push(format!("golden: {name} is gone"));
            continue;
        };
        match &**name {
            "openapi" => compare_openapi(&parsed(text), &parsed(now), breaks),
            // The proto files themselves are compared.
            "proto_surface" => {}
            _ => compare_replies(name, text, now, breaks),
        }
    }
}

/// Rows may come, but those that are there stay, with their requests and replies.
fn compare_replies(file: &str, old: &str, new: &str, breaks: &mut Vec<String>) {
    let rows = |text: &str| -> BTreeMap<(String, usize), String> {
        let mut rows = BTreeMap::new();
        for row in text.split("===== ").skip(1) {
            let (name, rest) = row.split_once('\n').unwrap_or((row, ""));
            // A name may stand twice, as "the same, read" does.
            let count = rows
                .keys()
                .filter(|(other, _): &&(String, usize)| other == name)
                .count();
            rows.insert((name.to_owned(), count), rest.trim_end().to_owned());
        }
        rows
    };
    let new = rows(new);
    for ((name, count), row) in rows(old) {
        match new.get(&(name.clone(), count)) {
            None => breaks.push(format!("golden: {file}: the row {name:?} is gone")),
            Some(now) if *now != row => breaks.push(format!("golden: {file}: the row {name:?} is another one")),
            Some(_) => {}
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Which way a schema goes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// What clients send: it may become wider.
    In,
    /// What they get: it may become narrower.
    Out,
}

fn compare_openapi(old: &Value, new: &Value, breaks: &mut Vec<String>) {
    let empty = serde_json::Map::new();
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    for (path, item) in object(&old["paths"]) {
        for (method, operation) in object(&item) {
            let now = &new["paths"][&path][&method];
            let place = format!("openapi: {method} {path}");
            if now.is_null() {
                breaks.push(format!("{place} is gone"));
                continue;
            }
            for (status, response) in object(&operation["responses"]) {
                let response_now = &now["responses"][&status];
                if response_now.is_null() {
                    breaks.push(format!("{place}: the response {status} is gone"));
                }
                for header in object(&response["headers"]).keys() {
                    if response_now["headers"][header].is_null() {
                        breaks.push(format!("{place}: the header {header} of {status} is gone"));
                    }
                }
            }
            let parameters = |operation: &Value| {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let named = parameters
                    .into_iter()
                    .map(|parameter| (parameter["name"].as_str().unwrap_or_default().to_owned(), parameter));
                named.collect::<BTreeMap<_, _>>()
            };
            let (before, after) = (parameters(&operation), parameters(now));
            for (name, parameter) in &before {
                match after.get(name) {
                    None => breaks.push(format!("{place}: the parameter {name} is gone")),
                    Some(now) => compare_schema(
                        &format!("{place}: {name}"),
                        Way::In,
                        &parameter["schema"],
                        &now["schema"],
                        breaks,
                    ),
                }
            }
            for (name, parameter) in &after {
                if parameter["required"] == true && before.get(name).is_none_or(|before| before["required"] != true) {
                    breaks.push(format!("{place}: the parameter {name} is required now"));
                }
            }
        }
    }
    let schemas = old["components"]["schemas"].as_object().unwrap_or(&empty);
    for (name, schema) in schemas {
        let now = &new["components"]["schemas"][name];
        let place = format!("openapi: {name}");
        if now.is_null() {
            breaks.push(format!("{place} is gone"));
            continue;
        }
        let way = if name.ends_with("Request") { Way::In } else { Way::Out };
        compare_schema(&place, way, schema, now, breaks);
    }
}

fn compare_schema(place: &str, way: Way, old: &Value, new: &Value, breaks: &mut Vec<String>) {
    let words = |value: &Value| -> BTreeSet<String> {
        match value {
            Value::Array(words) => words.iter().map(Value::to_string).collect(),
            Value::Null => BTreeSet::new(),
            one => BTreeSet::from([one.to_string()]),
        }
    };
    let mut choices = |what: &str, old: BTreeSet<String>, new: BTreeSet<String>| {
        let lost = match way {
            // What could be sent can still be, and what is got could be got before.
            Way::In => old.difference(&new).next().cloned(),
            Way::Out => new.difference(&old).next().cloned(),
        };
        if let Some(lost) = lost {
            let verb = if way == Way::In { "no longer takes" } else { "now has" };
            breaks.push(format!("{place}: {verb} the {what} {lost}"));
        }
    };
    choices("type", words(&old["type"]), words(&new["type"]));
    // Without an enumeration every word will do.
    let any_word = match way {
        Way::In => &new["enum"],
        Way::Out => &old["enum"],
    };
    if !any_word.is_null() {
        choices("value", words(&old["enum"]), words(&new["enum"]));
    }
    if way == Way::In {
        let number = |value: &Value, none: u64| value.as_u64().unwrap_or(none);
        if number(&new["maxLength"], u64::MAX) < number(&old["maxLength"], u64::MAX) {
            breaks.push(format!("{place}: takes fewer characters"));
        }
        if number(&new["minLength"], 0) > number(&old["minLength"], 0) {
            breaks.push(format!("{place}: needs more characters"));
        }
        if !new["pattern"].is_null() && new["pattern"] != old["pattern"] {
            breaks.push(format!("{place}: has another pattern"));
        }
    }
    let references = |schema: &Value| -> BTreeSet<String> {
        let choices = schema["oneOf"].as_array().cloned().unwrap_or_default();
        choices.iter().map(|choice| choice["$ref"].to_string()).collect()
    };
    for gone in references(old).difference(&references(new)) {
        breaks.push(format!("{place}: {gone} is gone"));
    }
    let (required, required_now) = (words(&old["required"]), words(&new["required"]));
    match way {
        Way::In => {
            for name in required_now.difference(&required) {
                breaks.push(format!("{place}: {name} is required now"));
            }
        }
        Way::Out => {
            for name in required.difference(&required_now) {
                breaks.push(format!("{place}: {name} may lack now"));
            }
        }
    }
    let empty = serde_json::Map::new();
    let properties = |schema: &'_ Value| schema["properties"].as_object().cloned().unwrap_or(empty.clone());
    let now = properties(new);
    for (name, schema) in properties(old) {
        match now.get(&name) {
            None => breaks.push(format!("{place}: the property {name} is gone")),
            Some(now) => compare_schema(&format!("{place}.{name}"), way, &schema, now, breaks),
        }
    }
    if way == Way::Out && old["additionalProperties"] == false {
        for name in now.keys().filter(|name| old["properties"][*name].is_null()) {
            breaks.push(format!(
                "{place}: has the property {name}, and was to have no other ones"
            ));
        }
    }
}

/// A repository of a test's own with what is compared of this one, released as v0.1.0.
struct Released(TempDir);

impl Released {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let released = Self(folder);
        for path in ["proto/dcams/storage/v1/storage.proto", "Cargo.toml"] {
            released.write(path, &std::fs::read_to_string(root().join(path)).unwrap());
        }
        for entry in std::fs::read_dir(root().join("tests/golden")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            released.write(
                &format!("tests/golden/{name}"),
                &std::fs::read_to_string(&path).unwrap(),
            );
        }
        released.git(&["init", "-q"]);
        released.commit();
        released
    }

    fn tagged() -> Self {
        let released = Self::new();
        released.git(&["tag", "v0.1.0"]);
        released
    }

    fn git(&self, arguments: &[&str]) {
        git(self.0.path(), arguments);
    }

    fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "a change"]);
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Replaces a text, which must be there.
    #[track_caller]
    fn change(&self, path: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        self.write(path, &text.replacen(from, to, 1));
    }

    fn compared(&self) -> Comparison {
        since_last_release(self.0.path())
    }
}

const PROTO: &str = "proto/dcams/storage/v1/storage.proto";
const OPENAPI: &str = "tests/golden/openapi.snap";

#[test]
fn without_a_release_there_is_nothing_to_compare_with() {
    let released = Released::new();
    assert_eq!(released.compared(), Comparison::NoRelease);
    released.git(&["tag", "nightly"]);
    assert_eq!(released.compared(), Comparison::NoRelease);
}

#[test]
fn what_only_adds_is_no_break() {
    let released = Released::tagged();
    released.change(
        PROTO,
        "message GetStatusRequest {",
        "message GetStatusRequest {\n  // New.\n  string language = 2;",
    );
    released.change(
        PROTO,
        "  STATUS_FAIL = 3;",
        "  STATUS_FAIL = 3;\n  // New.\n  STATUS_EXPIRED = 4;",
    );
    released.change(
        PROTO,
        "// What is known of a customer's identity.",
        "// Another comment.",
    );
    released.change(OPENAPI, "\"maxLength\": 200", "\"maxLength\": 300");
    released.change(
        OPENAPI,
        "Keeps the verification status",
        "Keeps, in other words, the verification status",
    );
    let golden = "tests/golden/samples.snap";
    let text = std::fs::read_to_string(released.0.path().join(golden)).unwrap();
    released.write(
        golden,
        &format!("{text}\n===== a new row\n{{}}\n\nHTTP/1.1 200 OK\n\n{{}}\n"),
    );
    released.write("tests/golden/new.snap", "---\nsource: x\n---\n===== a new row\n{}\n");
    released.commit();
    let (tag, breaks) = ("v0.1.0".to_owned(), Vec::new());
    assert_eq!(released.compared(), Comparison::Compared { tag, breaks });
}

#[test]
fn every_break_is_found_and_named() {
    let gone = "is gone or has another number";
    for (path, from, to, named) in [
        (
            PROTO,
            "Status expected_status = 4;",
            "Status expected_status = 7;",
            format!("UpdateStatusRequest.expected_status = 4 {gone}"),
        ),
        (
            PROTO,
            "string reason = 5;",
            "",
            format!("UpdateStatusRequest.reason = 5 {gone}"),
        ),
        (
            PROTO,
            "string zip = 7;",
            "bytes zip = 7;",
            "CreateOrUpdateCustomerRequest.zip = 7 is now bytes zip".into(),
        ),
        (
            PROTO,
            "string zip = 7;",
            "string postal_code = 7;",
            "zip = 7 is now string postal_code".into(),
        ),
        (
            PROTO,
            "bool created = 2;",
            "repeated bool created = 2;",
            "created = 2 is now bool created".into(),
        ),
        (
            PROTO,
            "bool created = 2;",
            "optional bool created = 2;",
            "created = 2 is now bool created".into(),
        ),
        (
            PROTO,
            "STATUS_FAIL = 3;",
            "STATUS_FAIL = 4;",
            format!("STATUS_FAIL = 3 {gone}"),
        ),
        (
            PROTO,
            "STATUS_FAIL = 3;",
            "STATUS_REFUSED = 3;",
            format!("STATUS_FAIL = 3 {gone}"),
        ),
        (
            PROTO,
            "rpc GetStatus(GetStatusRequest) returns (GetStatusResponse);",
            "",
            "rpc dcams.storage.v1.StorageService.GetStatus is gone".into(),
        ),
        (
            PROTO,
            "returns (stream WatchStatusChangesResponse)",
            "returns (WatchStatusChangesResponse)",
            "WatchStatusChanges takes or gives something else".into(),
        ),
        (
            PROTO,
            "package dcams.storage.v1;",
            "package dcams.storage.v2;",
            "service dcams.storage.v1.StorageService is gone".into(),
        ),
        (
            OPENAPI,
            "\"/v3/stable/api/storage\": {",
            "\"/v4/stable/api/storage\": {",
            "/v3/stable/api/storage is gone".into(),
        ),
        (
            OPENAPI,
            "\"phone\": {",
            "\"telephone\": {",
            "the property phone is gone".into(),
        ),
        (
            OPENAPI,
            "\"maxLength\": 200",
            "\"maxLength\": 100",
            "takes fewer characters".into(),
        ),
        (OPENAPI, "\"409\": {", "\"412\": {", "the response 409 is gone".into()),
        (
            OPENAPI,
            "\"updateCustomer\"\n",
            "\"updatedCustomer\"\n",
            "now has the value \"updatedCustomer\"".into(),
        ),
        (
            OPENAPI,
            "\"name\": \"Idempotency-Key\"",
            "\"name\": \"Retry-Key\"",
            "the parameter Idempotency-Key is gone".into(),
        ),
        (
            "tests/golden/documented_errors.snap",
            "{\"result\":\"Error\",\"message\":\"Missing a required input\"}",
            "{\"result\":\"Error\",\"message\":\"An input is missing\"}",
            "documented_errors: the row \"400: user is absent\" is another one".into(),
        ),
        (
            "tests/golden/samples.snap",
            "===== the sample of the seed",
            "===== a sample",
            "the row \"the sample of the seed\" is gone".into(),
        ),
    ] {
        let released = Released::tagged();
        released.change(path, from, to);
        released.commit();
        let Comparison::Compared { breaks, .. } = released.compared() else {
            panic!("{named}: not compared");
        };
        assert!(
            breaks.iter().any(|broken| broken.contains(&named)),
            "{named}: {breaks:#?}"
        );
        // It is found before it is committed too, and in the commits behind it.
        released.write("other", "");
        released.commit();
        assert!(matches!(released.compared(), Comparison::Compared { breaks, .. } if !breaks.is_empty()));
    }
}

#[test]
fn a_reserved_number_stays_reserved() {
    let released = Released::new();
    released.change(
        PROTO,
        "message GetStatusRequest {",
        "message GetStatusRequest {\n  reserved 2, 3;\n  reserved \"old\";",
    );
    released.commit();
    released.git(&["tag", "v0.1.0"]);
    released.change(PROTO, "  reserved 2, 3;\n  reserved \"old\";", "  string language = 2;");
    let Comparison::Compared { breaks, .. } = released.compared() else {
        panic!("not compared");
    };
    for named in [
        "language uses a reserved number",
        "no longer reserves 3..4",
        "no longer reserves \"old\"",
    ] {
        assert!(
            breaks.iter().any(|broken| broken.contains(named)),
            "{named}: {breaks:#?}"
        );
    }
}

#[test]
fn a_golden_file_that_is_gone_is_a_break() {
    let released = Released::tagged();
    std::fs::remove_file(released.0.path().join("tests/golden/samples.snap")).unwrap();
    let (tag, breaks) = ("v0.1.0".to_owned(), vec!["golden: samples is gone".to_owned()]);
    assert_eq!(released.compared(), Comparison::Compared { tag, breaks });
}

#[test]
fn a_version_that_may_break_is_told_and_not_held_to_it() {
    let released = Released::tagged();
    let manifest = std::fs::read_to_string(released.0.path().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find(|line| line.starts_with("version = ")).unwrap();
    released.change("Cargo.toml", version, "version = \"0.2.0\"");
    released.change(PROTO, "string reason = 5;", "");
    released.commit();
    let Comparison::MayBreak { tag, breaks } = released.compared() else {
        panic!("held to it");
    };
    assert_eq!((&*tag, breaks.len()), ("v0.1.0", 1));

    for (tag, version, is) in [
        ("v0.1.0", "0.1.9", true),
        ("v0.1.0", "0.2.0", false),
        ("v1.2.0", "1.9.0", true),
        ("v1.2.0", "2.0.0-rc.1", false),
        ("v0.9.0", "1.0.0", false),
    ] {
        assert_eq!(
            compatible(tag, &format!("version = \"{version}\"")),
            is,
            "{tag} {version}"
        );
    }
}
