//! The OpenAPI document: that it is as agreed, says what the program does, and is where it should be.

use std::{collections::BTreeSet, io::Read};

use flate2::read::GzDecoder;
use proto::{Reason, Refusal};
use serde_json::Value;
use store::{Email, IdempotencyKey, Profile};

use crate::{
    contract::{
        documented::{JOHN, SAMPLE},
        errors::ABSENT,
        transcript::LINK,
    },
    support::{Backend, Database, Gateway, Reply, golden, program, run},
};

/// The services whose examples are sent, in the order in which they build on each other.
const SERVED: [&str; 4] = [
    "updateStatus",
    "getStatus",
    "createOrUpdateCustomer",
    "getDocumentImages",
];

/// Where the document says that the JSON endpoint is, when nothing is known about that.
const SERVER: &str = "http://127.0.0.1:8080";

const OPERATION: &str = "/paths/~1v3~1stable~1api~1storage/post";
const REQUEST: &str = "/requestBody/content/application~1json/examples";
const REPLY: &str = "/responses/200/content/application~1json/examples";

/// What the program prints; no store is needed for that.
fn printed() -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = run(program().arg("openapi").current_dir(folder.path()), "").ok();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    text
}

fn operation() -> Value {
    let document: Value = serde_json::from_str(&printed()).unwrap();
    document.pointer(OPERATION).unwrap().clone()
}

/// The value of the example of that name, as it is sent: compact, the keys in the order of the document.
fn example(operation: &Value, examples: &str, name: &str) -> String {
    operation.pointer(examples).unwrap()[name]["value"].to_string()
}

#[test]
fn the_document_is_as_agreed() {
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    golden("openapi", &printed().replace(&version, "\"version\": \"<version>\""));
}

#[test]
fn every_error_of_the_json_endpoint_is_in_the_document_and_no_other() {
    let operation = operation();
    let mut documented = BTreeSet::new();
    for (status, response) in operation["responses"].as_object().unwrap() {
        let examples = response["content"]["application/json"]["examples"].as_object().unwrap();
        for (name, example) in examples.iter().filter(|_| status != "200") {
            assert_eq!(example["value"]["result"], "Error");
            let message = example["value"]["message"].as_str().unwrap();
            documented.insert((status.clone(), name.clone(), message.to_owned()));

            let reasons = response["headers"]["X-Error-Reason"]["schema"]["enum"]
                .as_array()
                .unwrap();
            assert!(reasons.contains(&name.as_str().into()), "{status} {name}");
        }
    }
    let table = || {
        let reasons = Reason::ALL.into_iter();
        reasons.filter(|reason| !ABSENT.iter().any(|(absent, _)| absent == reason))
    };
    let expected = table().map(|reason| {
        (
            reason.http_status().as_str().to_owned(),
            reason.name().to_owned(),
            Refusal::fields(reason, ["dob"]).message(),
        )
    });
    assert_eq!(documented, expected.collect());
    for reason in table() {
        let headers = &operation["responses"][reason.http_status().as_str()]["headers"];
        assert_eq!(headers["Retry-After"].is_object(), reason.retryable(), "{reason:?}");
    }
}

#[test]
fn the_examples_are_answered_as_the_document_says() {
    let operation = operation();
    for backend in Backend::BOTH {
        let database = backend.database();
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
        let link = format!("{LINK}{{id}}");
        let gateway = Gateway::start(&database, &["--customer-link", &link]);
        for service in SERVED {
            let reply = gateway.post(example(&operation, REQUEST, service));
            assert_eq!(reply.status, 200, "{backend} {service}");
            let expected = example(&operation, REPLY, service);
            assert_eq!(without_id(reply.text()), without_id(&expected), "{backend} {service}");
        }
    }
}

/// A reply without the public id in its link, which is new for every customer.
fn without_id(reply: &str) -> String {
    match reply.split_once(LINK) {
        Some((before, after)) => format!("{before}{LINK}<public id>{}", &after[32..]),
        None => reply.to_owned(),
    }
}

#[test]
fn the_sample_of_the_seed_is_in_the_document_to_the_byte() {
    let operation = operation();
    let example = &operation.pointer(REQUEST).unwrap()["updateStatus"];
    assert!(example["description"].as_str().unwrap().contains(SAMPLE));
    let sample: Value = serde_json::from_str(SAMPLE).unwrap();
    assert_eq!(example["value"], sample);
}

#[test]
fn the_limits_in_the_document_are_those_of_the_store() {
    let document: Value = serde_json::from_str(&printed()).unwrap();
    let parameters = document.pointer(OPERATION).unwrap()["parameters"].as_array().unwrap();
    let key = parameters.iter().find(|header| header["name"] == "Idempotency-Key");
    assert_eq!(key.unwrap()["schema"]["maxLength"], IdempotencyKey::MAX);
    let request = &document["components"]["schemas"]["CreateOrUpdateCustomerRequest"]["properties"];
    let target = request["target"]["properties"].as_object().unwrap();
    let mut count = 0;
    for (key, schema) in target.iter().chain([(&"reference".to_owned(), &request["reference"])]) {
        let Some(most) = schema["maxLength"].as_u64() else {
            continue;
        };
        let most = most as usize;
        let text = |length: usize| match &**key {
            // Only a date is one.
            "dob" => "19700101".repeat(2)[..length].to_owned(),
            _ => "é".repeat(length),
        };
        let is_taken = |length| match &**key {
            "email" => length <= Email::MAX_CHARACTERS,
            "reference" => store::check(&Profile::default(), &text(length)).is_ok(),
            _ => store::check(&profile(key, text(length)), "").is_ok(),
        };
        assert!(is_taken(most), "{key}");
        assert!(!is_taken(most + 1), "{key}");
        count += 1;
    }
    assert_eq!(count, 10, "an attribute has no limit");
}

fn profile(key: &str, value: String) -> Profile {
    let mut profile = Profile::default();
    let field = match key {
        "fn" => &mut profile.first_name,
        "ln" => &mut profile.last_name,
        "addr" => &mut profile.address,
        "city" => &mut profile.city,
        "state" => &mut profile.state,
        "zip" => &mut profile.zip,
        "dob" => &mut profile.date_of_birth,
        "phone" => &mut profile.phone,
        other => panic!("{other}"),
    };
    *field = value;
    profile
}

#[test]
fn the_ops_listener_has_the_document_with_the_address_of_the_json_endpoint() {
    let (_database, gateway) = served();
    let reply = gateway.get("/openapi.json");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut served: Value = serde_json::from_str(reply.text()).unwrap();
    let mut expected: Value =
        serde_json::from_str(&printed().replace(SERVER, &format!("http://{}", gateway.rest))).unwrap();
    let mut servers = served["servers"].take();
    // Swagger UI takes the first one, and can send to no other origin than its own.
    assert_eq!(servers[0]["url"], "/");
    servers.as_array_mut().unwrap().remove(0);
    assert_eq!(servers, expected["servers"].take());
    assert_eq!(served.to_string(), expected.to_string());
}

#[test]
fn the_sizes_in_words_are_those_that_the_gateway_was_given() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--document-limit", "5MiB"]);
    let text = gateway.get("/openapi.json").text().to_owned();
    for words in ["at most 5 MiB", "At most 64 KiB, also when inflated; 14 MiB for"] {
        assert!(text.contains(words), "{words}");
        assert!(!printed().contains(words), "{words}");
    }
}

#[test]
fn swagger_ui_loads_nothing_from_elsewhere() {
    let (_database, gateway) = served();
    let reply = gateway.get("/docs");
    assert_eq!((reply.status, reply.header("location")), (303, Some("/docs/")));

    let page = text(&gateway.get("/docs/"));
    let links: Vec<&str> = ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(links.contains(&"./swagger-initializer.js"), "{page}");
    for link in links {
        let name = link.trim_start_matches("./");
        let reply = gateway.get(&format!("/docs/{name}"));
        assert_eq!(reply.status, 200, "{link}");
        assert!(
            reply
                .header("content-security-policy")
                .unwrap()
                .starts_with("default-src 'self';")
        );
    }
    let settings = text(&gateway.get("/docs/swagger-initializer.js"));
    for setting in [
        "\"url\": \"/openapi.json\"",
        "\"validatorUrl\": \"none\"",
        "\"supportedSubmitMethods\": [\n    \"post\"\n  ]",
    ] {
        assert!(settings.contains(setting), "{settings}");
    }
}

/// A gateway on an empty database, which is to live as long.
fn served() -> (Database, Gateway) {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    (database, gateway)
}

/// The body of a page; the pages are packed whether or not one asks for that.
fn text(reply: &Reply) -> String {
    let mut text = String::new();
    match reply.header("content-encoding") {
        Some("gzip") => GzDecoder::new(&*reply.body).read_to_string(&mut text).unwrap(),
        _ => (&*reply.body).read_to_string(&mut text).unwrap(),
    };
    text
}
