-- The personal attributes, as one JSON record; in an encrypted store sealed.
ALTER TABLE customers ALTER COLUMN profile TYPE BYTEA USING convert_to(profile, 'UTF8');

-- The customer's own key, wrapped; null in a store that is not encrypted. There, email_key is a blind index.
ALTER TABLE customers ADD COLUMN data_key BYTEA;

-- The images of identity documents, apart from the customers: only those who ask for them read them.
CREATE TABLE documents (
    customer_id BIGINT   NOT NULL,
    -- 1 front, 2 back.
    kind        SMALLINT NOT NULL CHECK (kind BETWEEN 1 AND 2),
    -- In an encrypted store sealed.
    content     BYTEA    NOT NULL,
    upload_time BIGINT   NOT NULL,
    PRIMARY KEY (customer_id, kind)
);

-- Images are compressed as they are: to try it again costs time and gains nothing.
ALTER TABLE documents ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE INDEX documents_by_upload_time ON documents (upload_time);

-- Who erased a customer, and when: proof, with nothing personal in it. The history of its status stays.
CREATE TABLE erasures (
    customer_id BIGINT   PRIMARY KEY,
    account_id  BIGINT   NOT NULL,
    public_id   TEXT     NOT NULL,
    actor       TEXT     NOT NULL,
    face        SMALLINT NOT NULL CHECK (face BETWEEN 1 AND 3),
    request_id  TEXT     NOT NULL,
    erase_time  BIGINT   NOT NULL
);

-- At most one row; without it the store is not encrypted.
CREATE TABLE encryption (
    id        INTEGER  PRIMARY KEY CHECK (id = 1),
    -- 1 being encrypted, 2 encrypted.
    state     SMALLINT NOT NULL CHECK (state BETWEEN 1 AND 2),
    -- The key of the blind index, wrapped by a master key, which is never here.
    index_key BYTEA    NOT NULL
);
