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
        profile -> Binary,
        data_key -> Nullable<Binary>,
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

diesel::table! {
    documents (customer_id, kind) {
        customer_id -> BigInt,
        kind -> SmallInt,
        content -> Binary,
        upload_time -> BigInt,
    }
}

diesel::table! {
    erasures (customer_id) {
        customer_id -> BigInt,
        account_id -> BigInt,
        public_id -> Text,
        actor -> Text,
        face -> SmallInt,
        request_id -> Text,
        erase_time -> BigInt,
    }
}

diesel::table! {
    encryption (id) {
        id -> Integer,
        state -> SmallInt,
        index_key -> Binary,
    }
}

diesel::allow_tables_to_appear_in_same_query!(customers, documents);
