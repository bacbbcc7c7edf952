//! The documented contract as a table: requests, and what each is answered with. `compat` sends it to any deployment, and
//! the tests, which have this file as well, to ours.
//!
//! The rows are of the account `USERNAME` with the password `PASSWORD`, whose customer is `test@veratad.com`; it has no
//! `nobody@veratad.com`. Who sends them puts others in their place.

use proto::Reason;
pub(crate) use rest::SAMPLE;

/// A read of the sample's customer.
pub(crate) const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;

/// A read of nobody: a request that is sound in all else gets `CUSTOMER_NOT_FOUND` for it.
const NOBODY: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"nobody@veratad.com"}}"#;

/// Makes the customer of the sample.
const CREATE: &str = r#"{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","reference":"888888812","target":{"fn":"John","ln":"Smith","addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","phone":"2015106000"}}"#;

/// A request, and what it is answered with.
pub(crate) struct Row {
    /// What it shows.
    pub(crate) name: &'static str,
    pub(crate) says: Says,
    pub(crate) method: &'static str,
    /// What the path has after that of the endpoint.
    pub(crate) behind: &'static str,
    /// Whether the body is sent in gzip.
    pub(crate) gzip: bool,
    /// `<etag>` in a value stands for that of the customer, and `<key>` for a text that is new in every run.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: Vec<u8>,
    /// How many bytes the body is filled up to, with white space.
    pub(crate) length: usize,
    pub(crate) expected: Expected,
}

/// Whose word a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// The vendor's documentation.
    Vendor,
    /// What this gateway adds where that is silent.
    Gateway,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This error.
    Error(Reason),
    /// The error of a field that is invalid.
    Invalid(&'static str),
    /// The customer with this status, in the shape of `updateStatus`.
    Updated(&'static str),
    /// The customer as it is, in the shape of `getStatus`.
    Read,
    /// A customer that was not there before, in the shape of `createOrUpdateCustomer`.
    Created,
    /// The customer as it is, in that shape.
    Put,
    /// The customer as it is with its images, in the shape of `getDocumentImages`.
    Images,
}

impl Row {
    fn posted(says: Says, name: &'static str, body: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self {
            name,
            says,
            method: "POST",
            behind: "",
            gzip: false,
            headers: &[("content-type", "application/json")],
            body: body.into(),
            length: 0,
            expected,
        }
    }

    /// Whether a deployment that takes what it should refuse would change a customer that is there.
    pub(crate) fn changes(&self) -> bool {
        self.names(b"updateStatus") || self.creates()
    }

    /// Whether it would make one that is not there.
    pub(crate) fn creates(&self) -> bool {
        self.names(b"createOrUpdateCustomer")
    }

    fn names(&self, service: &[u8]) -> bool {
        self.body.windows(service.len()).any(|part| part == service)
    }
}

fn vendor(name: &'static str, body: impl Into<Vec<u8>>, expected: Expected) -> Row {
    Row::posted(Says::Vendor, name, body, expected)
}

fn ours(name: &'static str, body: impl Into<Vec<u8>>, expected: Expected) -> Row {
    Row::posted(Says::Gateway, name, body, expected)
}

/// What is sent to any deployment, table by table. Behind each the customer has the status that it had before.
pub(crate) fn tables() -> [Vec<Row>; 9] {
    [
        samples(),
        documented_errors(),
        order_of_checks(),
        tolerances(),
        malformed_bodies(),
        invalid_fields(),
        family(),
        http(),
        terms(),
    ]
}

/// `levels` arrays in each other.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// What the vendor's documentation shows.
pub(crate) fn samples() -> Vec<Row> {
    vec![
        vendor("the sample of the seed", SAMPLE, Expected::Updated("PASS")),
        vendor(
            "getStatus: the status stands at the top, and not in target",
            READ,
            Expected::Read,
        ),
        vendor(
            "the same status again succeeds",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Updated("PASS"),
        ),
        vendor(
            "PASS may become FAIL; the keys may come in any order",
            r#"{"target":{"status":"FAIL","email":"test@veratad.com"},"service":"updateStatus","pass":"PASSWORD","user":"USERNAME"}"#,
            Expected::Updated("FAIL"),
        ),
        vendor(
            "FAIL may become PENDING",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PENDING"}}"#,
            Expected::Updated("PENDING"),
        ),
        vendor("getStatus sees what was last set", READ, Expected::Read),
    ]
}

/// The four errors of the vendor's documentation, for ever the same bytes.
pub(crate) fn documented_errors() -> Vec<Row> {
    vec![
        vendor(
            "400: the email is no address",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test.veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::InvalidEmail),
        ),
        vendor(
            "400: the email is no text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":12345}}"#,
            Expected::Error(Reason::InvalidEmail),
        ),
        vendor(
            "400: user is absent",
            r#"{"pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: user is null",
            r#"{"user":null,"pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: user is empty",
            r#"{"user":"","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: user is white space",
            r#"{"user":"  ","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: pass is absent",
            r#"{"user":"USERNAME","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: pass is null",
            r#"{"user":"USERNAME","pass":null,"service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: pass is empty",
            r#"{"user":"USERNAME","pass":"","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: service is absent",
            r#"{"user":"USERNAME","pass":"PASSWORD","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: service is null",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":null,"target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: service is empty",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor("400: nothing is there", "{}", Expected::Error(Reason::MissingInput)),
        vendor(
            "400: target is absent",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus"}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: target is null",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":null}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: target is empty, as PHP writes an empty object",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":[]}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: email is absent",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: email is null",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":null,"status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: email is empty",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"","status":"PASS"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: status is absent",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: status is null",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":null}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "400: status is empty",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":""}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        vendor(
            "401: the password is wrong",
            r#"{"user":"USERNAME","pass":"password","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        vendor(
            "401: the user is unknown",
            r#"{"user":"username","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        vendor(
            "401: white space in a password counts",
            r#"{"user":"USERNAME","pass":"PASSWORD ","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        vendor(
            "404: updateStatus of nobody",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::CustomerNotFound),
        ),
        vendor(
            "404: getStatus of nobody",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"nobody@veratad.com"}}"#,
            Expected::Error(Reason::CustomerNotFound),
        ),
        vendor("after all that the status is what it was", READ, Expected::Read),
    ]
}

/// Bodies that are no request.
pub(crate) fn malformed_bodies() -> Vec<Row> {
    vec![
        ours("no body", "", Expected::Error(Reason::MalformedBody)),
        ours("white space", " \r\n", Expected::Error(Reason::MalformedBody)),
        ours(
            "form data, not just its header",
            "user=USERNAME&pass=PASSWORD&service=getStatus",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a body that is cut off",
            r#"{"user":"USERNAME","pass":"PASS"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "something after the object",
            r#"{"user":"USERNAME"}x"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours("two objects", "{}{}", Expected::Error(Reason::MalformedBody)),
        ours(
            "an array",
            r#"["USERNAME","PASSWORD","getStatus"]"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours("a string", r#""USERNAME""#, Expected::Error(Reason::MalformedBody)),
        ours("a number", "1", Expected::Error(Reason::MalformedBody)),
        ours("null", "null", Expected::Error(Reason::MalformedBody)),
        ours(
            "quotes that are not JSON's",
            "{'user':'USERNAME'}",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a comma too many",
            r#"{"user":"USERNAME",}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a comment",
            r#"{"user":"USERNAME"} // me"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a key twice",
            r#"{"user":"USERNAME","user":"OTHER","pass":"PASSWORD","service":"getStatus"}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a key twice, once escaped",
            r#"{"user":"USERNAME","\u0075ser":"OTHER","pass":"PASSWORD","service":"getStatus"}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a key twice in target",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"a@b.com","email":"test@veratad.com"}}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a key twice where nobody looks",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","options":[{"a":1,"a":2}]}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "half of a surrogate pair",
            r#"{"user":"\ud800"}"#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "a control character in a string",
            "{\"user\":\"USER\nNAME\"}",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "two byte order marks",
            "\u{feff}\u{feff}{}",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "not UTF-8",
            b"{\"user\":\"\xe9\"}",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "not UTF-8 where nobody looks",
            b"{\"options\":\"\xff\"}",
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "33 levels, the object included",
            format!(r#"{{"options":{}}}"#, nested(32)),
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "32 levels are read: what is missing is only an input",
            format!(r#"{{"options":{}}}"#, nested(31)),
            Expected::Error(Reason::MissingInput),
        ),
    ]
}

/// Fields that are not what they should be.
pub(crate) fn invalid_fields() -> Vec<Row> {
    vec![
        ours(
            "another service",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"deleteStatus","target":{"email":"test@veratad.com"}}"#,
            Expected::Error(Reason::UnknownService),
        ),
        ours(
            "a service in another letter case",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updatestatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::UnknownService),
        ),
        ours(
            "a service that is no text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":7,"target":{"email":"test@veratad.com"}}"#,
            Expected::Error(Reason::UnknownService),
        ),
        ours(
            "another status",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASSED"}}"#,
            Expected::Error(Reason::InvalidStatus),
        ),
        ours(
            "a status of the other face",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"STATUS_PASS"}}"#,
            Expected::Error(Reason::InvalidStatus),
        ),
        ours(
            "a status that is no text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":1}}"#,
            Expected::Error(Reason::InvalidStatus),
        ),
        ours(
            "a user that is no text",
            r#"{"user":1,"pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
            Expected::Invalid("user"),
        ),
        ours(
            "a pass that is no text",
            r#"{"user":"USERNAME","pass":{},"service":"getStatus","target":{"email":"test@veratad.com"}}"#,
            Expected::Invalid("pass"),
        ),
        ours(
            "a target that is no object",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":"test@veratad.com"}"#,
            Expected::Invalid("target"),
        ),
        ours(
            "a target that is a list",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":[{"email":"test@veratad.com"}]}"#,
            Expected::Invalid("target"),
        ),
        ours("after all that the status is what it was", READ, Expected::Read),
    ]
}

/// The order in which a request is checked: parse, required inputs, credentials, the target, the look-up.
pub(crate) fn order_of_checks() -> Vec<Row> {
    vec![
        ours(
            "JSON before the inputs: user is missing, but the body is cut off",
            r#"{"pass":"PASSWORD","service":"getStatus""#,
            Expected::Error(Reason::MalformedBody),
        ),
        ours(
            "required inputs before the credentials: service is missing",
            r#"{"user":"USERNAME","pass":"wrong","target":{"email":"test@veratad.com"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        ours(
            "credentials before the service: it is unknown",
            r#"{"user":"USERNAME","pass":"wrong","service":"deleteStatus"}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the target: it is missing",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus"}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the target: it is no object",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus","target":1}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the email's form",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus","target":{"email":"nonsense"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the status",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"test@veratad.com","status":"NONSENSE"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the look-up: the customer is there",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "credentials before the look-up: the customer is not there",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "missing before invalid: no email, and a status that is none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"status":"NONSENSE"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        ours(
            "missing before invalid: no status, and an email that is none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nonsense"}}"#,
            Expected::Error(Reason::MissingInput),
        ),
        ours(
            "the email before the status: both are none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody","status":"NONSENSE"}}"#,
            Expected::Error(Reason::InvalidEmail),
        ),
        ours(
            "the target before the look-up: the status is none, and nobody has that email",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"NONSENSE"}}"#,
            Expected::Error(Reason::InvalidStatus),
        ),
        ours(
            "the last of all: the look-up",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"PASS"}}"#,
            Expected::Error(Reason::CustomerNotFound),
        ),
        ours("after all that the status is what it was", READ, Expected::Read),
    ]
}

/// What is taken although it strays from the documentation, because some old client does it.
pub(crate) fn tolerances() -> Vec<Row> {
    vec![
        ours(
            "email and status beside target, as the seed's table has them",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":"test@veratad.com","status":"PASS"}"#,
            Expected::Updated("PASS"),
        ),
        ours(
            "nested wins",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":"nobody@veratad.com","status":"PASS","target":{"email":"test@veratad.com","status":"FAIL"}}"#,
            Expected::Updated("FAIL"),
        ),
        ours(
            "nested wins, also when what is flat makes no sense",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":1,"status":[],"target":{"email":"test@veratad.com","status":"PASS"}}"#,
            Expected::Updated("PASS"),
        ),
        ours(
            "one of each",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","status":"FAIL","target":{"email":"test@veratad.com"}}"#,
            Expected::Updated("FAIL"),
        ),
        ours(
            "nested but empty: flat is taken",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","email":"test@veratad.com","target":{"email":""}}"#,
            Expected::Read,
        ),
        ours(
            "flat beside PHP's empty target",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","email":"test@veratad.com","target":[]}"#,
            Expected::Read,
        ),
        ours(
            "a status in lower case, upper case out",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"pass"}}"#,
            Expected::Updated("PASS"),
        ),
        ours(
            "a status in mixed case",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"Pending"}}"#,
            Expected::Updated("PENDING"),
        ),
        ours(
            "white space around every text but the password",
            r#"{"user":" USERNAME ","pass":"PASSWORD","service":" updateStatus\n","target":{"email":"\ttest@veratad.com ","status":" PASS "}}"#,
            Expected::Updated("PASS"),
        ),
        ours(
            "getStatus with a status in target changes nothing",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com","status":"FAIL"}}"#,
            Expected::Read,
        ),
        ours(
            "getStatus with a flat status changes nothing, even if it is none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","status":"NONSENSE","target":{"email":"test@veratad.com"}}"#,
            Expected::Read,
        ),
        ours("the status is what it was", READ, Expected::Read),
        ours(
            "unknown keys are ignored",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","reference":"000","rules":null,"options":{"customer_link":true},"target":{"email":"test@veratad.com","status":"PASS","ssn":"000000000","age":"21+","fn":"Jane","test_key":[1,2.5e3,{"x":null}]}}"#,
            Expected::Updated("PASS"),
        ),
        ours("they are not stored either", READ, Expected::Read),
        ours(
            "a byte order mark, and white space around the body",
            "\u{feff}\r\n\t {\"user\":\"USERNAME\",\"pass\":\"PASSWORD\",\"service\":\"getStatus\",\"target\":{\"email\":\"test@veratad.com\"}}\r\n\r\n",
            Expected::Read,
        ),
    ]
}

/// The attributes of the customer that [`customer`] makes, as replies have them.
pub(crate) const JOHN: &str = r#""fn":"John","ln":"Smith","addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","phone":"2015106000""#;

/// A read, to see what is there.
pub(crate) fn read() -> Row {
    vendor("getStatus", READ, Expected::Read)
}

/// Sets the status back to what it was, if that is one.
pub(crate) fn restore(status: &str) -> Option<Row> {
    let status = ["PASS", "PENDING", "FAIL"].into_iter().find(|word| *word == status)?;
    Some(vendor(
        "the status is set back to what it was",
        SAMPLE.replace(r#""PASS""#, &format!("{status:?}")),
        Expected::Updated(status),
    ))
}

/// A customer that is there, for requests that need one: it is made, where it may be.
pub(crate) fn customer() -> Vec<Row> {
    vec![ours(
        "createOrUpdateCustomer: a new customer is PENDING, and its type is createCustomer",
        CREATE,
        Expected::Created,
    )]
}

/// The sisters of `updateStatus`.
pub(crate) fn family() -> Vec<Row> {
    let put = |rest: &str| {
        format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"test@veratad.com"{rest}}}}}"#
        )
    };
    let images = |user: &str, pass: &str, email: &str| {
        format!(r#"{{"user":"{user}","pass":"{pass}","service":"getDocumentImages","target":{{"email":"{email}"}}}}"#)
    };
    let invalid = |name: &'static str, rest: &str, field: &'static str| ours(name, put(rest), Expected::Invalid(field));
    vec![
        ours(
            "createOrUpdateCustomer of one that is there: the type is updateCustomer, the status stays",
            put(""),
            Expected::Put,
        ),
        ours(
            "empty, null and absent keep what is stored",
            put(r#","fn":"","ln":null,"zip":"","documents":null"#),
            Expected::Put,
        ),
        ours(
            "a status that comes along is ignored",
            put(r#","status":"NONSENSE""#),
            Expected::Put,
        ),
        ours(
            "only the email is required, and it may stand flat",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","email":"test@veratad.com"}"#,
            Expected::Put,
        ),
        ours(
            "documents may be PHP's empty array",
            put(r#","documents":[]"#),
            Expected::Put,
        ),
        invalid(
            "400: a document that is no Base64",
            r#","documents":{"front":"?"}"#,
            "front",
        ),
        invalid(
            "400: a document that is no image",
            r#","documents":{"back":"dGhpcyBpcyBubyBpbWFnZQ=="}"#,
            "back",
        ),
        invalid(
            "400: a document that is no text",
            r#","documents":{"front":1}"#,
            "front",
        ),
        invalid("400: documents that are none", r#","documents":"front""#, "documents"),
        invalid("400: a name that is no text", r#","fn":1"#, "fn"),
        invalid("400: a name with a control character", r#","ln":"a\u0000b""#, "ln"),
        invalid(
            "400: a city that is too long",
            &format!(r#","city":"{}""#, "x".repeat(101)),
            "city",
        ),
        invalid("400: a dob that is no date", r#","dob":"19800230""#, "dob"),
        ours(
            "400: a reference that is too long",
            CREATE.replace("888888812", &"4".repeat(129)),
            Expected::Invalid("reference"),
        ),
        ours(
            "400: a customer whose email is none",
            CREATE.replace("test@veratad.com", "test"),
            Expected::Error(Reason::InvalidEmail),
        ),
        ours(
            "400: a customer without an email",
            CREATE.replace("test@veratad.com", ""),
            Expected::Error(Reason::MissingInput),
        ),
        ours(
            "401: createOrUpdateCustomer",
            CREATE.replace("PASSWORD", "wrong"),
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "getDocumentImages: the images stand in target, and the status at the top",
            images("USERNAME", "PASSWORD", "test@veratad.com"),
            Expected::Images,
        ),
        ours(
            "400: getDocumentImages without an email",
            images("USERNAME", "PASSWORD", ""),
            Expected::Error(Reason::MissingInput),
        ),
        ours(
            "401: getDocumentImages",
            images("USERNAME", "wrong", "test@veratad.com"),
            Expected::Error(Reason::BadCredentials),
        ),
        ours(
            "404: getDocumentImages of nobody",
            images("USERNAME", "PASSWORD", "nobody@veratad.com"),
            Expected::Error(Reason::CustomerNotFound),
        ),
        ours("after all that the customer is what it was", READ, Expected::Read),
    ]
}

/// What surrounds a body: path, method, encoding, size.
pub(crate) fn http() -> Vec<Row> {
    let nobody = |name: &'static str| ours(name, NOBODY, Expected::Error(Reason::CustomerNotFound));
    let method = |name: &'static str, method: &'static str, body: &str| Row {
        method,
        ..ours(name, body, Expected::Error(Reason::MethodNotAllowed))
    };
    let declared = |name: &'static str, headers: &'static [(&'static str, &'static str)]| Row {
        headers,
        ..nobody(name)
    };
    let unsupported = |name: &'static str, headers: &'static [(&'static str, &'static str)]| Row {
        headers,
        ..ours(name, NOBODY, Expected::Error(Reason::UnsupportedEncoding))
    };
    vec![
        method("405: GET", "GET", ""),
        method("405: DELETE", "DELETE", ""),
        method("405: OPTIONS", "OPTIONS", ""),
        method("405: PUT of what a POST would be", "PUT", NOBODY),
        Row {
            behind: "s",
            ..ours("404: another path", NOBODY, Expected::Error(Reason::UnknownPath))
        },
        Row {
            behind: "/",
            ..nobody("the path with a trailing slash is served, and not redirected")
        },
        Row {
            behind: "?debug=1",
            ..nobody("a query is not looked at")
        },
        declared(
            "a body that is declared as a form, as curl -d and PHP do",
            &[("content-type", "application/x-www-form-urlencoded")],
        ),
        declared(
            "a content type with a charset",
            &[("content-type", "application/json; charset=utf-8")],
        ),
        declared("text", &[("content-type", "text/plain")]),
        declared("no content type", &[]),
        declared(
            "what else is asked for is not looked at",
            &[("accept", "text/html"), ("origin", "https://example.com")],
        ),
        Row {
            gzip: true,
            headers: &[("content-encoding", "gzip")],
            ..nobody("a body in gzip")
        },
        declared("a body that is declared as it is", &[("content-encoding", "identity")]),
        unsupported("415: br", &[("content-encoding", "br")]),
        unsupported("415: two encodings", &[("content-encoding", "gzip, gzip")]),
        Row {
            length: 64 * 1024,
            ..nobody("65,536 bytes")
        },
        Row {
            length: 64 * 1024 + 1,
            ..ours("413: 65,537 bytes", NOBODY, Expected::Error(Reason::BodyTooLarge))
        },
    ]
}

/// Retries and conditions.
pub(crate) fn terms() -> Vec<Row> {
    let change = |name: &'static str, headers: &'static [(&'static str, &'static str)], status: &str, expected| Row {
        headers,
        ..ours(name, SAMPLE.replace(r#""PASS""#, &format!("{status:?}")), expected)
    };
    vec![
        change(
            "a change with a key",
            &[("idempotency-key", "<key>")],
            "FAIL",
            Expected::Updated("FAIL"),
        ),
        change(
            "the same again: the first reply",
            &[("idempotency-key", "<key>")],
            "FAIL",
            Expected::Updated("FAIL"),
        ),
        change(
            "400: the same key with another status",
            &[("idempotency-key", "<key>")],
            "PASS",
            Expected::Error(Reason::KeyReused),
        ),
        change(
            "400: a key with a space",
            &[("idempotency-key", "a b")],
            "PASS",
            Expected::Invalid("Idempotency-Key"),
        ),
        change(
            "409: the customer has another etag",
            &[("if-match", "\"nonsense\"")],
            "PASS",
            Expected::Error(Reason::Conflict),
        ),
        change(
            "400: an etag without quotes",
            &[("if-match", "nonsense")],
            "PASS",
            Expected::Invalid("If-Match"),
        ),
        change(
            "a change with the customer's etag",
            &[("if-match", "<etag>")],
            "PENDING",
            Expected::Updated("PENDING"),
        ),
        change(
            "any etag will do",
            &[("if-match", "*")],
            "PASS",
            Expected::Updated("PASS"),
        ),
        ours("the customer is as the last change left it", READ, Expected::Read),
    ]
}
