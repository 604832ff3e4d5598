// A subscriber that knows nothing but NATS and the published schemas: it follows the events through its durable consumer,
// holds each to its schema, headers too, and says in a line of JSON what it got; also what it hears without the consumer.
// NATS_URL, SUBSCRIBER_NKEY_SEED, SCHEMAS (their directory). It ends with 1 at the first message that is not as published.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { jetstream } from '@nats-io/jetstream';
import { connect, nkeyAuthenticator } from '@nats-io/transport-node';
import Ajv from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const { NATS_URL, SUBSCRIBER_NKEY_SEED, SCHEMAS } = process.env;
const USER = 'subscriber';

const ajv = addFormats(new Ajv({ allErrors: true }));
for (const file of await readdir(SCHEMAS)) {
  ajv.addSchema(JSON.parse(await readFile(join(SCHEMAS, file), 'utf8')), file.replace('.schema.json', ''));
}

function hold(schema, value, subject) {
  if (!ajv.validate(schema, value)) {
    console.log(JSON.stringify({ subject, invalid: ajv.errorsText() }));
    process.exit(1);
  }
}

const connection = await connect({
  servers: NATS_URL,
  authenticator: nkeyAuthenticator(new TextEncoder().encode(SUBSCRIBER_NKEY_SEED)),
});

(async () => {
  for await (const message of connection.subscribe('converter.v1.>')) {
    console.log(JSON.stringify({ live: message.headers.get('ce-id') }));
  }
})();

console.log(JSON.stringify({ connected: connection.getServer() }));

const consumer = await jetstream(connection, { domain: 'converter' }).consumers.get('EVENTS', USER);
for await (const message of await consumer.consume()) {
  const headers = Object.fromEntries(message.headers.keys().map((name) => [name, message.headers.get(name)]));
  const type = headers['ce-type'].replace(/^converter\.(.*)\.v1$/, '$1');
  const { fact, job } = message.json();
  hold('headers', headers, message.subject);
  hold(type, { fact, job }, message.subject);
  await message.ackAck();
  console.log(JSON.stringify({ id: headers['ce-id'], job_id: headers['ce-subject'], type, revision: job?.revision ?? null }));
}
