//! What requests and replies are made of.

use utoipa::openapi::{
    KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type,
    schema::{AdditionalProperties, SchemaType},
};

use super::words;

/// A service, and where it differs from its sisters.
pub(super) struct Service {
    pub(super) name: &'static str,
    takes: Takes,
    /// What stands between `reference` and `target` in its reply.
    top: &'static [Top],
    /// What its `target` has beside the nine attributes.
    inside: Option<Inside>,
}

/// What is in a request beside the credentials and the email.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    Status,
    Customer,
}

#[derive(Clone, Copy)]
enum Top {
    CustomerLink,
    Status,
    Type,
}

#[derive(Clone, Copy)]
enum Inside {
    Status,
    Documents,
}

/// The services; the order of the keys is that of the replies.
pub(super) const SERVICES: [Service; 4] = [
    Service {
        name: "updateStatus",
        takes: Takes::Status,
        top: &[],
        inside: Some(Inside::Status),
    },
    Service {
        name: "getStatus",
        takes: Takes::Nothing,
        top: &[Top::Status],
        inside: None,
    },
    Service {
        name: "createOrUpdateCustomer",
        takes: Takes::Customer,
        top: &[Top::CustomerLink, Top::Status, Top::Type],
        inside: None,
    },
    Service {
        name: "getDocumentImages",
        takes: Takes::Nothing,
        top: &[Top::Status],
        inside: Some(Inside::Documents),
    },
];

/// An attribute of a customer.
struct Attribute {
    key: &'static str,
    what: &'static str,
    /// The most characters; the store has the last word.
    most: usize,
    form: Form,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    /// Text, or a number that is kept as text.
    TextOrNumber,
    Date,
    Email,
}

/// The nine attributes in the order of the replies.
const ATTRIBUTES: [Attribute; 9] = [
    Attribute {
        key: "fn",
        what: "First name",
        most: 200,
        form: Form::Text,
    },
    Attribute {
        key: "ln",
        what: "Last name",
        most: 200,
        form: Form::Text,
    },
    Attribute {
        key: "addr",
        what: "Address",
        most: 200,
        form: Form::Text,
    },
    Attribute {
        key: "city",
        what: "City",
        most: 100,
        form: Form::Text,
    },
    Attribute {
        key: "state",
        what: "State",
        most: 100,
        form: Form::Text,
    },
    Attribute {
        key: "zip",
        what: "Postal code",
        most: 16,
        form: Form::TextOrNumber,
    },
    Attribute {
        key: "dob",
        what: "Date of birth, a day of the calendar as YYYYMMDD",
        most: 8,
        form: Form::Date,
    },
    Attribute {
        key: "email",
        what: "Email address, with a domain that has a dot; letter case does not count",
        most: 254,
        form: Form::Email,
    },
    Attribute {
        key: "phone",
        what: "Phone number",
        most: 32,
        form: Form::TextOrNumber,
    },
];

const REFERENCE: Attribute = Attribute {
    key: "reference",
    what: "The account's own reference of the customer",
    most: 128,
    form: Form::TextOrNumber,
};

/// No control characters, in a form that every dialect of regular expressions reads.
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// The name of the schema of a service's request.
pub(super) fn request_name(service: &str) -> String {
    capital(service) + "Request"
}

/// The name of the schema of a service's reply.
pub(super) fn reply_name(service: &str) -> String {
    capital(service) + "Reply"
}

fn capital(service: &str) -> String {
    let (first, rest) = service.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// The schema of a service's request.
pub(super) fn request(service: &Service, image_limit: usize) -> ObjectBuilder {
    let mut request = ObjectBuilder::new();
    request = required(
        request,
        "user",
        text(&format!(
            "The account; at most {} bytes of UTF-8, without `:`",
            proto::MAX_USER
        ))
        .min_length(Some(1))
        .max_length(Some(proto::MAX_USER)),
    );
    request = required(
        request,
        "pass",
        text(&format!(
            "The password; at most {} bytes of UTF-8. White space counts",
            proto::MAX_PASSWORD
        ))
        .min_length(Some(1))
        .max_length(Some(proto::MAX_PASSWORD))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password))),
    );
    request = required(request, "service", one_of_words([service.name]));
    if service.takes == Takes::Customer {
        request = request.property(REFERENCE.key, given(&REFERENCE));
    }
    required(request, "target", target(service, image_limit))
}

/// The object `target` of a request.
fn target(service: &Service, image_limit: usize) -> ObjectBuilder {
    let mut target = ObjectBuilder::new();
    for attribute in &ATTRIBUTES {
        if attribute.form == Form::Email {
            target = required(target, attribute.key, given(attribute));
        } else if service.takes == Takes::Customer {
            target = target.property(attribute.key, given(attribute));
        }
    }
    match service.takes {
        Takes::Nothing => target,
        Takes::Status => required(target, "status", status("The new status; every change is allowed")),
        Takes::Customer => target.property("documents", documents_given(image_limit)),
    }
}

/// An attribute as it may come.
fn given(attribute: &Attribute) -> ObjectBuilder {
    let most = attribute.most;
    let what = attribute.what;
    if attribute.form == Form::Email {
        return text(&format!("{what}. At most {most} characters"))
            .min_length(Some(1))
            .max_length(Some(most))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)));
    }
    let (types, as_text) = match attribute.form {
        Form::TextOrNumber => (
            vec![Type::String, Type::Number, Type::Null],
            ". A number is taken as its text",
        ),
        Form::Date => (
            vec![Type::String, Type::Integer, Type::Null],
            ". A number is taken as its text",
        ),
        Form::Text | Form::Email => (vec![Type::String, Type::Null], ""),
    };
    let (limits, pattern) = match attribute.form {
        Form::Date => (String::new(), r"^([0-9]{8})?$"),
        _ => (
            format!(". At most {most} characters, no control characters"),
            NO_CONTROL,
        ),
    };
    text(&format!(
        "{what}{limits}{as_text}. Empty or `null` keeps what is stored"
    ))
    .schema_type(SchemaType::Array(types))
    .max_length(Some(most))
    .pattern(Some(pattern))
}

fn documents_given(image_limit: usize) -> ObjectBuilder {
    let most = words::size(image_limit);
    let image = |side: &str| {
        text(&format!(
            "The {side} in Base64, whose padding may be missing, and which may have line breaks: JPEG, PNG, WebP, HEIC or PDF, at \
             most {most}. Empty or `null` keeps what is stored"
        ))
        .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
        .content_encoding("base64")
    };
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Object, Type::Null]))
        .description(Some("Images of the customer's document"))
        .property("front", image("front"))
        .property("back", image("back"))
}

/// The schema of a service's reply.
pub(super) fn reply(service: &Service) -> ObjectBuilder {
    let mut reply = required(closed(), "result", one_of_words(["Success"]));
    reply = required(reply, REFERENCE.key, stored(&REFERENCE));
    for top in service.top {
        reply = match top {
            Top::CustomerLink => required(
                reply,
                "customer_link",
                text(
                    "Where people can look at the customer, from the template that the gateway was given; empty without one",
                ),
            ),
            Top::Status => required(reply, "status", status("The customer's status")),
            Top::Type => required(
                reply,
                "type",
                one_of_words(["createCustomer", "updateCustomer"]).description(Some("What was done")),
            ),
        };
    }
    let attributes = ATTRIBUTES.iter().fold(closed(), |target, attribute| {
        required(target, attribute.key, stored(attribute))
    });
    let target = match service.inside {
        None => attributes,
        Some(Inside::Status) => required(attributes, "status", status("The customer's status")),
        Some(Inside::Documents) => {
            let image = |side: &str| {
                text(&format!("The {side} in Base64; empty where none is stored")).content_encoding("base64")
            };
            let documents = required(closed(), "front", image("front"));
            required(attributes, "documents", required(documents, "back", image("back")))
        }
    };
    required(reply, "target", target)
}

/// An attribute as it is sent.
fn stored(attribute: &Attribute) -> ObjectBuilder {
    match attribute.form {
        Form::Email => text("Email address, as it was registered"),
        _ => text(&format!("{}; empty where none is stored", attribute.what)),
    }
}

/// The schema of every error.
pub(super) fn error() -> ObjectBuilder {
    let error = required(closed(), "result", one_of_words(["Error"]));
    required(
        error,
        "message",
        text("What is wrong, for people; programs go by the status and by `X-Error-Reason`"),
    )
}

fn status(what: &str) -> ObjectBuilder {
    one_of_words(["PASS", "PENDING", "FAIL"]).description(Some(what))
}

/// Text that is one of `words`.
pub(super) fn one_of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
}

/// An object that has no other keys than those that are named.
fn closed() -> ObjectBuilder {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn required(object: ObjectBuilder, key: &str, schema: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    object.property(key, schema).required(key)
}
