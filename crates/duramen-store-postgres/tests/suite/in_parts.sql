-- Makes the tables of runs, as the migration has made them in the schema that is searched first, into tables in four
-- parts by run id. They are empty.
DO $$
DECLARE
    one text;
    settings text;
    seen text := pg_get_viewdef('journal_json'::regclass);
BEGIN
    DROP VIEW journal_json;
    FOREACH one IN ARRAY ARRAY['runs', 'journal', 'inbox', 'run_data', 'run_tags', 'outgoing', 'stream_items'] LOOP
        SELECT coalesce('WITH (' || array_to_string(reloptions, ', ') || ')', '') INTO settings
        FROM pg_class WHERE oid = one::regclass;
        EXECUTE format('ALTER TABLE %I RENAME TO whole', one);
        EXECUTE format('CREATE TABLE %I (LIKE whole INCLUDING ALL) PARTITION BY HASH (run_id)', one);
        DROP TABLE whole;
        FOR part IN 0..3 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 4, REMAINDER %s) %s',
                           one || '_' || part, one, part, settings);
        END LOOP;
    END LOOP;
    EXECUTE 'CREATE VIEW journal_json AS ' || seen;
END $$
