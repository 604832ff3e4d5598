// A certified OpenID provider (npm oidc-provider) that issues access tokens to services, as JWT (RFC 9068).
// PORT: where it listens. KEYS: a file with its keys, newest first; it is made if it is not there.
// AUDIENCE, SCOPES: of its tokens. Each client is named for the algorithm of its tokens and has the secret "secret".
import { readFile, writeFile } from 'node:fs/promises';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const { PORT, KEYS, AUDIENCE, SCOPES, ROTATE } = process.env;
const ALGORITHMS = ['RS256', 'ES256', 'EdDSA'];

async function newKeys(generation) {
  return Promise.all(ALGORITHMS.map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${generation}` };
  }));
}

let keys = JSON.parse(await readFile(KEYS, 'utf8').catch(() => '[]'));
if (!keys.length || ROTATE) {
  // The first key of an algorithm signs; the others are published as long as tokens of theirs may be about.
  keys = [...(await newKeys(keys.length / ALGORITHMS.length)), ...keys];
  await writeFile(KEYS, JSON.stringify(keys), { mode: 0o600 });
}

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  clients: ALGORITHMS.map((alg) => ({
    client_id: alg,
    client_secret: 'secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: SCOPES,
  })),
  scopes: SCOPES.split(' '),
  jwks: { keys },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:converter',
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, _resource, client) => ({
        scope: SCOPES,
        audience: AUDIENCE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: client.clientId } },
      }),
    },
  },
});
provider.listen(Number(PORT), '127.0.0.1', () => console.log('listening'));
