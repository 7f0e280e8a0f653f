// oidc-provider, set up in the shapes of Zitadel: its paths, the JWT-profile grant that it does not have itself, and
// tokens that are opaque unless their user is told to get JWTs.

import { createPublicKey } from 'node:crypto';

import { decodeProtectedHeader, jwtVerify } from 'jose';
import { errors, Provider } from 'oidc-provider';

export const JWT_PROFILE = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
export const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
export const PROJECT = '300000000000000002';
export const APP = '300000000000000003';
export const MACHINES = 'machines';

const AUDIENCE = /^urn:zitadel:iam:org:project:id:(.+):aud$/;
const ROLES = 'urn:zitadel:iam:org:projects:roles';
const OLDEST = 3600;

// oidc-provider keeps what it makes (codes, opaque tokens) here; it is forgotten when the provider ends.
class Memory {
  static kinds = new Map();

  constructor(kind) {
    if (!Memory.kinds.has(kind)) Memory.kinds.set(kind, new Map());
    this.items = Memory.kinds.get(kind);
  }

  async upsert(id, payload) { this.items.set(id, payload); }

  async find(id) { return this.items.get(id); }

  async findByUserCode(code) { return [...this.items.values()].find((item) => item.userCode === code); }

  async findByUid(uid) { return [...this.items.values()].find((item) => item.uid === uid); }

  async consume(id) { this.items.get(id).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { this.items.delete(id); }

  async revokeByGrantId(grant) {
    for (const [id, item] of this.items) if (item.grantId === grant) this.items.delete(id);
  }
}

const projects = (scopes) => scopes.map((scope) => AUDIENCE.exec(scope)?.[1]).filter(Boolean);

function rolesOf(user, scopes) {
  if (!scopes.includes(ROLES)) return {};
  const held = projects(scopes).filter((project) => user.grants[project]);
  return Object.fromEntries(held.map((project) => [
    `urn:zitadel:iam:org:project:${project}:roles`,
    Object.fromEntries(user.grants[project].roles.map((role) => [role, { 1: 'fleet' }])),
  ]));
}

async function verified(issuer, accounts, assertion) {
  const { kid } = decodeProtectedHeader(assertion);
  const user = accounts.ofKey(kid);
  if (!user?.active || user.keys[kid].expires <= Date.now() / 1000) throw new Error('no such key');
  const options = { issuer: user.id, subject: user.id, audience: issuer, algorithms: ['RS256'], requiredClaims: ['iat', 'exp'] };
  const { payload } = await jwtVerify(assertion, createPublicKey(user.keys[kid].pem), options);
  const age = Date.now() / 1000 - payload.iat;
  if (age < -1 || age > OLDEST) throw new Error('not of now');
  return user;
}

export function makeProvider(issuer, accounts, options) {
  const signing = [...accounts.signing].sort((one) => (one.kid === accounts.active ? -1 : 1));
  const provider = new Provider(issuer, {
    adapter: Memory,
    jwks: { keys: signing },
    clients: [
      { client_id: MACHINES, token_endpoint_auth_method: 'none', grant_types: [JWT_PROFILE], response_types: [], redirect_uris: [] },
      { client_id: APP, application_type: 'native', token_endpoint_auth_method: 'none', grant_types: [DEVICE_CODE], response_types: [], redirect_uris: [] },
    ],
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    scopes: ['openid', 'profile'],
    cookies: { keys: ['a stand-in keeps no sessions'] },
    ttl: { AccessToken: options.tokenLife, DeviceCode: 300, Grant: 300, IdToken: options.tokenLife },
    routes: { token: '/oauth/v2/token', jwks: '/oauth/v2/keys', device_authorization: '/oauth/v2/device_authorization', code_verification: '/device' },
    features: { devInteractions: { enabled: false }, deviceFlow: { enabled: true }, resourceIndicators: { enabled: true }, introspection: { enabled: true } },
    formats: {
      customizers: {
        jwt(ctx, token, jwt) {
          if (token.clientId !== MACHINES) return;
          const user = accounts.get(token.accountId);
          const scopes = token.scope.split(' ');
          delete jwt.payload.scope;
          Object.assign(jwt.payload, { aud: projects(scopes), client_id: user.id, nbf: jwt.payload.iat, ...rolesOf(user, scopes) });
        },
      },
    },
  });
  provider.registerGrantType(JWT_PROFILE, async (...given) => {
    const ctx = given.at(-1)?.oidc ? given.at(-1) : given[0];
    const { assertion, scope } = ctx.oidc.params;
    let user;
    try {
      user = await verified(issuer, accounts, assertion);
    } catch {
      throw new errors.InvalidGrant('Errors.User.AssertionInvalid');
    }
    const scopes = (scope ?? '').split(' ').filter(Boolean);
    const token = new provider.AccessToken({ accountId: user.id, client: ctx.oidc.client, gty: JWT_PROFILE, scope });
    token.resourceServer = {
      audience: projects(scopes).join(' ') || issuer,
      identifier: () => 'urn:fleet',
      accessTokenFormat: user.jwt ? 'jwt' : 'opaque',
      jwt: { sign: { alg: 'RS256', kid: accounts.active } },
    };
    ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration };
  }, ['assertion', 'scope']);
  return provider;
}
