//! The documents of the API on the ops listener: OpenAPI for programs, Swagger UI for people.

use axum::{
    Router,
    body::Bytes,
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::Response,
    routing::get,
};
use http::HeaderValue;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";

/// What the pages may load: what comes from here, and the icons and styles that they have in themselves.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'");

/// `/openapi.json`: the document. `/docs`: Swagger UI, out of this program, which loads nothing from elsewhere.
pub(crate) fn router(openapi: String) -> Router {
    let openapi = Bytes::from(openapi);
    let config = Config::from(DOCUMENT)
        // By default a badge asks a server of swagger.io about the document.
        .validator_url("none")
        // From here another origin would be posted to, and the JSON endpoint lets no browser do that.
        .supported_submit_methods([""; 0])
        .doc_expansion("full");
    let pages: Router = SwaggerUi::new("/docs").config(config).into();
    Router::new()
        .route(
            DOCUMENT,
            get(async move || ([(CONTENT_TYPE, "application/json")], openapi.clone())),
        )
        .merge(
            pages.layer(axum::middleware::map_response(async |mut response: Response| {
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
                response
            })),
        )
}
