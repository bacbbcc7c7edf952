//! The OpenAPI document of the endpoint, made from the table of errors and from one description of each service.

mod errors;
mod examples;
mod schemas;

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

use crate::endpoint::PATH;

/// The one type of content that is documented.
const JSON: &str = "application/json";

/// The headers of every reply.
const REQUEST_ID: &str = "X-Request-Id";
const CACHE_CONTROL: &str = "Cache-Control";

/// What the endpoint is, for those who have never seen it.
const ABOUT: &str = "\
Keeps the verification status of a company's customers. One endpoint, four services: the body's `service` says which. \
The credentials stand in the body, as `user` and `pass`; an account sees and changes only its own customers.";

/// How requests are judged and what is tolerated; what a schema cannot say.
const RULES: &str = "\
### Order of checks
The body is parsed (`MALFORMED_BODY`); then `user`, `pass` and `service` are required (`MISSING_INPUT`); then the \
credentials are checked (`BAD_CREDENTIALS`); then the service and its inputs (the other 400s); then the customer is \
looked up (`CUSTOMER_NOT_FOUND`). Nothing about a customer is said before the credentials hold.

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

/// The OpenAPI 3.1 document of this face as JSON for people, with the face at the URL `server`.
///
/// # Errors
/// None are known: everything in it can be written as JSON, but the type does not know.
pub fn openapi(server: &str) -> serde_json::Result<String> {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("dcams storage")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license.build()));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url(server).build()]))
        .paths(PathsBuilder::new().path(PATH, PathItem::new(HttpMethod::Post, operation())))
        .components(Some(components()))
        .build()
        .to_pretty_json()
}

fn operation() -> OperationBuilder {
    let request_id = ParameterBuilder::new()
        .name(REQUEST_ID)
        .parameter_in(ParameterIn::Header)
        .required(utoipa::openapi::Required::False)
        .description(Some(
            "Names the request in the reply, the logs and the history: 1 to 64 letters, digits, `.`, `_` or `-`. Anything else is \
             replaced by a new name.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .example(Some(json!("checkout-4711")));
    let mut operation = OperationBuilder::new()
        .operation_id(Some("storage"))
        .tag("storage")
        .summary(Some("Calls the service that the body names"))
        .description(Some(RULES))
        .parameter(request_id)
        .request_body(Some(request_body()))
        .response("200", found());
    for status in errors::statuses() {
        operation = operation.response(status.as_str(), errors::response(status));
    }
    operation
}

fn request_body() -> RequestBody {
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
        .description(Some(
            "One JSON object, nested at most 32 deep. At most 64 KiB, also when inflated; 28 MiB for `createOrUpdateCustomer`.",
        ))
        .required(Some(utoipa::openapi::Required::True))
        .content(JSON, content)
        .build()
}

/// The response of a service that did what it was asked for.
fn found() -> Response {
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

fn components() -> Components {
    let names = schemas::SERVICES.map(|service| service.name);
    let mut components = ComponentsBuilder::new()
        .schema("Request", one_of(names.map(|name| (name, schemas::request_name(name)))))
        .schema("Reply", replies(names.map(schemas::reply_name)))
        .schema("Error", schemas::error());
    for service in &schemas::SERVICES {
        components = components
            .schema(schemas::request_name(service.name), schemas::request(service))
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
