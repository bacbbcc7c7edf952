//! The OpenAPI document of the endpoint, made from the table of errors and from one description of each service.

mod errors;
mod examples;
mod schemas;
mod words;

use serde_json::json;
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, Discriminator, Header, HeaderBuilder, HttpMethod, InfoBuilder,
    LicenseBuilder, OneOfBuilder, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Response, ResponseBuilder,
    Schema, ServerBuilder, Type,
    example::ExampleBuilder,
    path::{OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::{RequestBody, RequestBodyBuilder},
    schema::ObjectBuilder,
};

pub use self::examples::SAMPLE;
use crate::{Settings, endpoint::PATH, json::MAX_LEVELS};

/// The one type of content that is documented.
const JSON: &str = "application/json";

/// The headers of every reply.
const REQUEST_ID: &str = "X-Request-Id";
const CACHE_CONTROL: &str = "Cache-Control";

/// The header of a reply with a customer.
const ETAG: &str = "ETag";

const EXAMPLE_ETAG: &str = "\"0f8fad5b-2\"";

/// What the endpoint is, for those who have never seen it.
const ABOUT: &str = "\
Keeps the verification status of a company's customers. One endpoint, four services: the body's `service` says which. \
The credentials stand in the body, as `user` and `pass`; an account sees and changes only its own customers.";

/// How requests are judged and what is tolerated; what a schema cannot say.
const RULES: &str = "\
### Order of checks
The body is parsed (`MALFORMED_BODY`); then `user`, `pass` and `service` are required (`MISSING_INPUT`); then the \
credentials are checked (`BAD_CREDENTIALS`); then the service and its inputs (the other 400s); then a known \
`Idempotency-Key` is answered (`KEY_REUSED`); then the customer is looked up (`CUSTOMER_NOT_FOUND`) and compared with \
`If-Match` (`CONFLICT`). Nothing about a customer is said before the credentials hold.

### Safe retries and conditional changes
- A client that lost a reply sends the same again with the same `Idempotency-Key`: the first reply comes again, and nothing \
is changed twice. Keys belong to the account, and are kept for 24 hours; refused requests leave none behind. Once \
the customer is erased there is nothing to tell (`CUSTOMER_NOT_FOUND`).
- Each reply with a customer has its `ETag`. With that as `If-Match`, a change is made only if the customer is still what \
it was then, else it is a `CONFLICT`; to a customer that is not there, `createOrUpdateCustomer` says the same.

### Tolerated, for the sake of old clients
- Any `Content-Type`, or none, as long as the body is JSON. A UTF-8 byte order mark and white space around it are \
skipped. `Content-Encoding` may be `gzip` or `identity`.
- `email` and `status` may stand beside `target`; where both are there, those in `target` win. An empty `target` may be \
PHP's `[]`.
- `status` in any letter case; replies have it in upper case. A `status` that comes with another service than \
`updateStatus` is ignored.
- White space around strings is removed, but for `pass`. Numbers are taken for `reference`, `zip`, `phone` and `dob`, \
and kept as text; leading zeros of strings stay.
- Unknown keys are ignored, and neither stored nor logged. A key that comes twice is an error.
- A trailing slash on the path.

### Replies
Compact JSON, the keys always in the order that the examples show, and all of them there: what is not stored is `\"\"`. \
Errors are `{\"result\":\"Error\",\"message\":…}`, and name their reason in `X-Error-Reason`. Only what is no readable \
HTTP request (a broken request line, a URI or a head that is too long) is refused without a body. There are no \
redirects, and there is no `WWW-Authenticate`.";

/// The deployment that a document describes.
#[derive(Clone, Debug)]
pub struct Described {
    /// Where the face is; programs that read the document take the first one unless they are told otherwise.
    pub servers: Vec<Server>,
    /// What the face takes.
    pub settings: Settings,
    /// The most bytes of an image, which the service judges.
    pub image_limit: usize,
}

/// A place where the face is served.
#[derive(Clone, Debug)]
pub struct Server {
    /// A URL, or a path on the host that has the document.
    pub url: String,
    /// What people should know about it.
    pub note: &'static str,
}

/// The OpenAPI 3.1 document of this face as JSON for people.
///
/// # Errors
/// None are known: everything in it can be written as JSON, but the type does not know.
pub fn openapi(described: &Described) -> serde_json::Result<String> {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("dcams storage")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license.build()));
    let servers = described.servers.iter().map(|server| {
        ServerBuilder::new()
            .url(&*server.url)
            .description(Some(server.note))
            .build()
    });
    OpenApiBuilder::new()
        .info(info)
        .servers(Some(servers))
        .paths(PathsBuilder::new().path(PATH, PathItem::new(HttpMethod::Post, operation(&described.settings))))
        .components(Some(components(described.image_limit)))
        .build()
        .to_pretty_json()
}

fn operation(settings: &Settings) -> OperationBuilder {
    // None has an example of its own: Swagger UI would send it with every request.
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let request_id = header(
        REQUEST_ID,
        "Names the request in the reply, the logs and the history: 1 to 64 letters, digits, `.`, `_` or `-`, such as \
         `checkout-4711`. Anything else is replaced by a new name.",
    )
    .schema(Some(text()));
    let key = text()
        .min_length(Some(1))
        .max_length(Some(128))
        .pattern(Some("^[!-~]*$"));
    let idempotency_key = header(
        "Idempotency-Key",
        "For `updateStatus` and `createOrUpdateCustomer`: names the change, so that the same request, sent again within 24 \
         hours, gets the first reply and changes nothing. 1 to 128 printable ASCII characters, such as a UUID. Reads ignore it.",
    )
    .schema(Some(key));
    let if_match = header(
        "If-Match",
        "For `updateStatus` and `createOrUpdateCustomer`: the `ETag` that the customer must have. One strong etag, such as `\"0f8fad5b-2\"`, or for \
         `updateStatus` also `*`, which any customer has. A weak etag never matches. Reads ignore it.",
    )
    .schema(Some(text().pattern(Some(r#"^(\*|(W/)?"[!#-~]*")$"#))));
    let mut operation = OperationBuilder::new()
        .operation_id(Some("storage"))
        .tag("storage")
        .summary(Some("Calls the service that the body names"))
        .description(Some(RULES))
        .parameter(request_id)
        .parameter(idempotency_key)
        .parameter(if_match)
        .request_body(Some(request_body(settings)))
        .response("200", found());
    for status in errors::statuses() {
        operation = operation.response(status.as_str(), errors::response(status, settings));
    }
    operation
}

/// A header that a request may have.
fn header(name: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(utoipa::openapi::Required::False)
        .description(Some(description))
}

fn request_body(settings: &Settings) -> RequestBody {
    let examples = examples::all().map(|service| {
        let example = ExampleBuilder::new()
            .summary(service.summary)
            .description(service.note)
            .value(Some(service.request));
        (service.name, example)
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Request")))
        .examples_from_iter(examples);
    RequestBodyBuilder::new()
        .description(Some(format!(
            "One JSON object, nested at most {MAX_LEVELS} deep. At most {}, also when inflated; {} for `createOrUpdateCustomer`.",
            words::size(settings.body_limit),
            words::size(settings.document_body_limit.max(settings.body_limit)),
        )))
        .required(Some(utoipa::openapi::Required::True))
        .content(JSON, content)
        .build()
}

/// The response of a service that did what it was asked for.
fn found() -> Response {
    let etag = text_header(
        "Names the state of the customer, for `If-Match`: another one has another. To be compared, not read",
    )
    .example(Some(json!(EXAMPLE_ETAG)));
    let examples = examples::all().map(|service| {
        let example = ExampleBuilder::new()
            .summary(service.summary)
            .value(Some(service.reply));
        (service.name, example)
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Reply")))
        .examples_from_iter(examples);
    with_common_headers(ResponseBuilder::new().description("Done; also when a customer was created"))
        .header(ETAG, etag.build())
        .content(JSON, content)
        .build()
}

fn with_common_headers(response: ResponseBuilder) -> ResponseBuilder {
    [REQUEST_ID, CACHE_CONTROL]
        .into_iter()
        .fold(response, |response, name| {
            response.header_ref(name, Ref::new(format!("#/components/headers/{name}")))
        })
}

fn components(image_limit: usize) -> Components {
    let names = schemas::SERVICES.map(|service| service.name);
    let mut components = ComponentsBuilder::new()
        .schema("Request", one_of(names.map(|name| (name, schemas::request_name(name)))))
        .schema("Reply", replies(names.map(schemas::reply_name)))
        .schema("Error", schemas::error());
    for service in &schemas::SERVICES {
        components = components
            .schema(
                schemas::request_name(service.name),
                schemas::request(service, image_limit),
            )
            .schema(schemas::reply_name(service.name), schemas::reply(service));
    }
    components
        .header(
            REQUEST_ID,
            text_header("The name of the request: the one that came with it, or a new one")
                .example(Some(json!("019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071")))
                .build(),
        )
        .header(
            CACHE_CONTROL,
            HeaderBuilder::new()
                .description(Some("Always `no-store`"))
                .schema(Some(schemas::one_of_words(["no-store"])))
                .build(),
        )
        .build()
}

/// A choice among the requests, made by the name of the service.
fn one_of<const N: usize>(requests: [(&str, String); N]) -> RefOr<Schema> {
    let refs = requests.map(|(service, name)| (service, Ref::from_schema_name(name)));
    let mapping = refs
        .iter()
        .map(|(service, schema)| (*service, schema.ref_location.clone()));
    let discriminator = Discriminator::with_mapping("service", mapping);
    refs.iter()
        .fold(OneOfBuilder::new(), |one_of, (_, schema)| one_of.item(schema.clone()))
        .discriminator(Some(discriminator))
        .into()
}

/// A choice among the replies; the request alone says which of them comes.
fn replies<const N: usize>(names: [String; N]) -> RefOr<Schema> {
    let replies = names.into_iter().map(Ref::from_schema_name);
    replies.fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}

fn text_header(description: &str) -> HeaderBuilder {
    let schema = Header::default().schema;
    HeaderBuilder::new().description(Some(description)).schema(schema)
}
