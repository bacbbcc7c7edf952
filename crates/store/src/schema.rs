//! The tables, as diesel knows them; migrations/ has what they are for.

diesel::table! {
    accounts (id) {
        id -> BigInt,
        name -> Text,
        password_hash -> Text,
        credential_version -> BigInt,
        enabled -> Bool,
        create_time -> BigInt,
        update_time -> BigInt,
    }
}

diesel::table! {
    customers (id) {
        id -> BigInt,
        account_id -> BigInt,
        email_key -> Text,
        public_id -> Text,
        reference -> Text,
        profile -> Text,
        status -> SmallInt,
        status_version -> BigInt,
        revision -> BigInt,
        create_time -> BigInt,
        update_time -> BigInt,
    }
}

diesel::table! {
    status_changes (position) {
        position -> BigInt,
        account_id -> BigInt,
        customer_id -> BigInt,
        version -> BigInt,
        from_status -> Nullable<SmallInt>,
        to_status -> SmallInt,
        actor -> Text,
        face -> SmallInt,
        request_id -> Text,
        change_time -> BigInt,
    }
}
