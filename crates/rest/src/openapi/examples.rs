//! A request of each service, and the reply that it gets from a database that has the customer of the seed document.

use serde_json::{Value, json};

/// What a service is shown with.
pub(super) struct Example {
    /// The name of the service.
    pub(super) name: &'static str,
    /// What the service does.
    pub(super) summary: &'static str,
    /// What is to be said about the request.
    pub(super) note: String,
    pub(super) request: Value,
    pub(super) reply: Value,
}

/// The sample request of the vendor's documentation, with its own white space.
pub const SAMPLE: &str = concat!(
    "{\n",
    "\"user\": \"USERNAME\",\n",
    "\"pass\": \"PASSWORD\",\n",
    "\"service\": \"updateStatus\",\n",
    "\"target\": {\n",
    "    \"email\": \"test@veratad.com\", \n",
    "    \"status\": \"PASS\"\n",
    "    }\n",
    "}\n",
);

/// The smallest PNG there is: one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The examples in the order in which they build on each other.
pub(super) fn all() -> [Example; 4] {
    [
        Example {
            name: "updateStatus",
            summary: "Sets the status of a customer",
            note: format!("As the vendor's documentation has it:\n\n```json\n{SAMPLE}```"),
            request: json!({
                "user": "USERNAME",
                "pass": "PASSWORD",
                "service": "updateStatus",
                "target": { "email": "test@veratad.com", "status": "PASS" },
            }),
            reply: json!({
                "result": "Success",
                "reference": "888888812",
                "target": {
                    "fn": "John",
                    "ln": "Smith",
                    "addr": "123 Main St",
                    "city": "Stratford",
                    "state": "CT",
                    "zip": "06614",
                    "dob": "19700101",
                    "email": "test@veratad.com",
                    "phone": "2015106000",
                    "status": "PASS",
                },
            }),
        },
        Example {
            name: "getStatus",
            summary: "Reads the status of a customer",
            note: "It never writes, also when a status comes with it.".to_owned(),
            request: json!({
                "user": "USERNAME",
                "pass": "PASSWORD",
                "service": "getStatus",
                "target": { "email": "test@veratad.com" },
            }),
            reply: json!({
                "result": "Success",
                "reference": "888888812",
                "status": "PASS",
                "target": {
                    "fn": "John",
                    "ln": "Smith",
                    "addr": "123 Main St",
                    "city": "Stratford",
                    "state": "CT",
                    "zip": "06614",
                    "dob": "19700101",
                    "email": "test@veratad.com",
                    "phone": "2015106000",
                },
            }),
        },
        Example {
            name: "createOrUpdateCustomer",
            summary: "Registers a customer, or changes one that is there",
            note: "A new customer is `PENDING`. What is `\"\"`, `null` or absent keeps what is stored.".to_owned(),
            request: json!({
                "user": "USERNAME",
                "pass": "PASSWORD",
                "service": "createOrUpdateCustomer",
                "reference": "4711",
                "target": {
                    "fn": "Jane",
                    "ln": "Doe",
                    "addr": "1 Elm St",
                    "city": "Boston",
                    "state": "MA",
                    "zip": "02108",
                    "dob": "19800229",
                    "email": "jane@example.com",
                    "phone": "6175550100",
                    "documents": { "front": PNG, "back": PNG },
                },
            }),
            reply: json!({
                "result": "Success",
                "reference": "4711",
                "customer_link": "https://admin.example.com/customers/0f8fad5bd9cb469fa16570867728950e",
                "status": "PENDING",
                "type": "createCustomer",
                "target": {
                    "fn": "Jane",
                    "ln": "Doe",
                    "addr": "1 Elm St",
                    "city": "Boston",
                    "state": "MA",
                    "zip": "02108",
                    "dob": "19800229",
                    "email": "jane@example.com",
                    "phone": "6175550100",
                },
            }),
        },
        Example {
            name: "getDocumentImages",
            summary: "Reads the images of a customer's document",
            note: "An image that is not stored is `\"\"`.".to_owned(),
            request: json!({
                "user": "USERNAME",
                "pass": "PASSWORD",
                "service": "getDocumentImages",
                "target": { "email": "jane@example.com" },
            }),
            reply: json!({
                "result": "Success",
                "reference": "4711",
                "status": "PENDING",
                "target": {
                    "fn": "Jane",
                    "ln": "Doe",
                    "addr": "1 Elm St",
                    "city": "Boston",
                    "state": "MA",
                    "zip": "02108",
                    "dob": "19800229",
                    "email": "jane@example.com",
                    "phone": "6175550100",
                    "documents": { "front": PNG, "back": PNG },
                },
            }),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_example_is_the_sample() {
        let sample: Value = serde_json::from_str(SAMPLE).unwrap();
        assert_eq!(sample.to_string(), all()[0].request.to_string());
    }
}
