//! The legacy request: which keys it has, what is required of them, and which of two places wins.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderValue;
use proto::{MAX_PASSWORD, MAX_USER, Reason, Refusal};
use serde::de::MapAccess;

use crate::{
    image::Image,
    json::{self, Field, Literal, Nested, Object, Value},
    tolerances::{Needed, Tolerance},
};

/// A body, taken apart but not judged. It holds a password, so it is not `Debug`.
#[derive(Default)]
pub(crate) struct LegacyRequest<'a> {
    user: Field<'a>,
    pass: Field<'a>,
    service: Field<'a>,
    target: Nested<Target<'a>>,
    flat_email: Field<'a>,
    flat_status: Field<'a>,
    reference: Field<'a>,
}

/// The object `target`.
#[derive(Default)]
pub(crate) struct Target<'a> {
    email: Field<'a>,
    status: Field<'a>,
    pub(crate) first_name: Field<'a>,
    pub(crate) last_name: Field<'a>,
    pub(crate) address: Field<'a>,
    pub(crate) city: Field<'a>,
    pub(crate) state: Field<'a>,
    pub(crate) zip: Field<'a>,
    pub(crate) date_of_birth: Field<'a>,
    pub(crate) phone: Field<'a>,
    documents: Nested<Documents<'a>>,
}

/// The object `documents` in it.
#[derive(Default)]
struct Documents<'a> {
    front: Literal<'a>,
    back: Literal<'a>,
}

impl<'a> Object<'a> for LegacyRequest<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "user" => self.user = value.read()?,
            "pass" => self.pass = value.read()?,
            "service" => self.service = value.read()?,
            "target" => self.target = value.read()?,
            "email" => self.flat_email = value.read()?,
            "status" => self.flat_status = value.read()?,
            "reference" => self.reference = value.read_text_or_number()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

impl<'a> Object<'a> for Target<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "email" => self.email = value.read()?,
            "status" => self.status = value.read()?,
            "fn" => self.first_name = value.read()?,
            "ln" => self.last_name = value.read()?,
            "addr" => self.address = value.read()?,
            "city" => self.city = value.read()?,
            "state" => self.state = value.read()?,
            "zip" => self.zip = value.read_text_or_number()?,
            "dob" => self.date_of_birth = value.read_text_or_number()?,
            "phone" => self.phone = value.read_text_or_number()?,
            "documents" => self.documents = value.read()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

impl<'a> Object<'a> for Documents<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "front" => self.front = value.read_literal()?,
            "back" => self.back = value.read_literal()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

impl<'a> LegacyRequest<'a> {
    /// Takes `body` apart.
    pub(crate) fn parse(body: &'a [u8], needed: &Needed) -> Result<Self, Reason> {
        // The whole body first: what follows may then rely on it, also where a value is skipped.
        let text = std::str::from_utf8(body).map_err(|_| Reason::MalformedBody)?;
        let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => {
                needed.note(Tolerance::Bom);
                rest
            }
            None => text,
        };
        // The parser's error may quote the body: it goes no further.
        json::parse(text).map_err(|_| Reason::MalformedBody)
    }

    /// The credentials, as the value of an `authorization` header; refused where `service` is missing, too, since that
    /// is said before anything is said about the credentials.
    pub(crate) fn credentials(&self) -> Result<HeaderValue, Refusal> {
        // A password is taken as it is: white space is one.
        let no_pass = match &self.pass {
            Field::Absent => true,
            Field::Text(pass) => pass.is_empty(),
            Field::Number(_) | Field::Other => false,
        };
        if no_pass || self.user.is_blank() || self.service.is_blank() {
            return Err(Reason::MissingInput.into());
        }
        let Some(user) = self.user.trimmed() else {
            return Err(Refusal::fields(Reason::InvalidField, ["user"]));
        };
        let Field::Text(pass) = &self.pass else {
            return Err(Refusal::fields(Reason::InvalidField, ["pass"]));
        };
        // No account is named like that. And a user with a colon must not be sent on: `a:b` with the password `c` would
        // arrive as the user `a` with the password `b:c`.
        if user.len() > MAX_USER || user.contains(':') || pass.len() > MAX_PASSWORD {
            return Err(Reason::BadCredentials.into());
        }
        basic(user, pass)
    }

    /// Who the request says that it comes from.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.trimmed()
    }

    /// The name of the service; empty, and so unknown, where it is no text.
    pub(crate) fn service(&self) -> &str {
        self.service.trimmed().unwrap_or_default()
    }

    /// What the service is to work on.
    pub(crate) fn inputs(&'a self, needed: &'a Needed) -> Result<Inputs<'a>, Refusal> {
        let target = match &self.target {
            Nested::Object(target) => Some(target),
            Nested::Absent => None,
            Nested::EmptyArray => {
                needed.note(Tolerance::EmptyTargetArray);
                None
            }
            Nested::Other => return Err(Refusal::fields(Reason::InvalidField, ["target"])),
        };
        Ok(Inputs {
            request: self,
            target,
            needed,
        })
    }
}

/// The `authorization` of `user` with `pass`.
fn basic(user: &str, pass: &str) -> Result<HeaderValue, Refusal> {
    const SCHEME: &str = "Basic ";

    let plain = [user, ":", pass].concat();
    let mut header = vec![0; SCHEME.len() + plain.len().div_ceil(3) * 4];
    let (scheme, encoded) = header.split_at_mut(SCHEME.len());
    scheme.copy_from_slice(SCHEME.as_bytes());
    // There is room, and base64 is always a header value; the types do not know.
    STANDARD.encode_slice(plain, encoded).map_err(|_| Reason::Internal)?;
    let mut header = HeaderValue::try_from(header).map_err(|_| Reason::Internal)?;
    header.set_sensitive(true);
    Ok(header)
}

/// The inputs of a service: those in `target`, or where it has none, those beside it.
pub(crate) struct Inputs<'a> {
    request: &'a LegacyRequest<'a>,
    target: Option<&'a Target<'a>>,
    needed: &'a Needed,
}

impl<'a> Inputs<'a> {
    /// The email, which is required. Its form is for the service to judge.
    pub(crate) fn email(&self) -> Result<&'a Field<'a>, Refusal> {
        let nested = self.target.map(|target| &target.email);
        required(nested, &self.request.flat_email, || {
            self.needed.note(Tolerance::FlatEmail)
        })
    }

    /// The status, which is required.
    pub(crate) fn status(&self) -> Result<&'a Field<'a>, Refusal> {
        let nested = self.target.map(|target| &target.status);
        required(nested, &self.request.flat_status, || {
            self.needed.note(Tolerance::FlatStatus)
        })
    }

    /// The account's own reference for the customer.
    pub(crate) fn reference(&self) -> Result<String, Refusal> {
        written("reference", &self.request.reference)
    }

    /// The attribute of `target` that has that key.
    pub(crate) fn attribute(
        &self,
        key: &'static str,
        of: impl FnOnce(&'a Target<'a>) -> &'a Field<'a>,
    ) -> Result<String, Refusal> {
        self.target.map_or(Ok(String::new()), |target| written(key, of(target)))
    }

    /// Counts a request that has a number for a text.
    pub(crate) fn count_numbers(&self) {
        let nested = self.target.is_some_and(|target| {
            [&target.zip, &target.date_of_birth, &target.phone]
                .into_iter()
                .any(Field::is_number)
        });
        if nested || self.request.reference.is_number() {
            self.needed.note(Tolerance::NumberAsText);
        }
    }

    fn documents(&self) -> Result<Option<&'a Documents<'a>>, Refusal> {
        match self.target.map(|target| &target.documents) {
            None | Some(Nested::Absent) => Ok(None),
            Some(Nested::Object(documents)) => Ok(Some(documents)),
            Some(Nested::EmptyArray) => {
                self.needed.note(Tolerance::EmptyDocumentsArray);
                Ok(None)
            }
            Some(Nested::Other) => Err(invalid("documents")),
        }
    }

    /// The images of the documents; one that there is not is empty.
    pub(crate) fn images(&self) -> Result<Images, Refusal> {
        let Some(documents) = self.documents()? else {
            return Ok(Images::default());
        };
        let (front, back) = (image("front", documents.front)?, image("back", documents.back)?);
        if front.has_white_space || back.has_white_space {
            self.needed.note(Tolerance::ImageWhiteSpace);
        }
        if front.lacks_padding || back.lacks_padding {
            self.needed.note(Tolerance::ImagePadding);
        }
        Ok(Images {
            front: front.bytes,
            back: back.bytes,
        })
    }

    /// Leaves a status that came along unread, and counts it.
    pub(crate) fn ignore_status(&self) {
        let nested = self.target.is_some_and(|target| !target.status.is_blank());
        if nested || !self.request.flat_status.is_blank() {
            self.needed.note(Tolerance::StatusOnGet);
        }
    }
}

/// The images of a request.
#[derive(Default)]
pub(crate) struct Images {
    pub(crate) front: Bytes,
    pub(crate) back: Bytes,
}

/// What stands in the field `key`; empty where nothing does.
fn written(key: &'static str, field: &Field<'_>) -> Result<String, Refusal> {
    Ok(field.written().ok_or_else(|| invalid(key))?.into_owned())
}

/// The image in the field `key`; empty where there is none.
fn image(key: &'static str, literal: Literal<'_>) -> Result<Image, Refusal> {
    match literal {
        Literal::Absent => Ok(Image::default()),
        Literal::Text(text) => Image::in_literal(text).ok_or_else(|| invalid(key)),
        Literal::Other => Err(invalid(key)),
    }
}

fn invalid(key: &'static str) -> Refusal {
    Refusal::fields(Reason::InvalidField, [key])
}

/// The nested field where something stands in it, else the flat one, which is counted.
fn required<'a>(
    nested: Option<&'a Field<'a>>,
    flat: &'a Field<'a>,
    flat_used: impl FnOnce(),
) -> Result<&'a Field<'a>, Refusal> {
    if let Some(field) = nested.filter(|field| !field.is_blank()) {
        return Ok(field);
    }
    if flat.is_blank() {
        return Err(Reason::MissingInput.into());
    }
    flat_used();
    Ok(flat)
}
