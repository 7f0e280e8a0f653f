// The part of Zitadel's API that oidc-provider has nothing of: users, keys, grants, signing keys, and the confirmation of
// device codes. Shapes from its documentation; no line of its code.

import { missing, Refusal } from './accounts.mjs';
import { APP } from './provider.mjs';

const JWT_TOKENS = 'ACCESS_TOKEN_TYPE_JWT';
const USERS = '/zitadel.user.v2.UserService/';
export const ORGANIZATION = '300000000000000001';
export const OWN_API = 'urn:zitadel:iam:org:project:id:zitadel:aud';

const precondition = () => new Refusal(400, 'failed_precondition');
const query = (list, name) => {
  const found = (Array.isArray(list) ? list : []).map((item) => item[name]).find(Boolean);
  if (!found) throw new Refusal(400, 'invalid_argument');
  return found;
};

// A hundred at most where nothing says how many, as the provider does.
const page = ({ query: asked }, found) => {
  const offset = Number(asked?.offset ?? 0);
  return found.slice(offset, offset + Math.min(Number(asked?.limit ?? 0) || 100, 1000));
};

function shown(user) {
  const common = { userId: user.id, username: user.name, state: user.active ? 'USER_STATE_ACTIVE' : 'USER_STATE_INACTIVE' };
  if (!user.isMachine) return { ...common, human: {} };
  return { ...common, machine: { name: user.name, ...(user.jwt ? { accessTokenType: JWT_TOKENS } : {}) } };
}

export class Facade {
  constructor(accounts, current, rotated) {
    this.accounts = accounts;
    this.current = current;
    this.rotated = rotated;
  }

  async authorize(header) {
    const provider = this.current();
    const token = await provider.AccessToken.find((header ?? '').replace(/^Bearer /, ''));
    const user = token && this.accounts.users[token.accountId];
    if (!user?.active || !token.scope?.split(' ').includes(OWN_API)) throw new Refusal(401, 'unauthenticated');
    if (!user.admin) throw new Refusal(403, 'permission_denied');
  }

  async answer(method, path, body) {
    if (method === 'POST' && path.startsWith(USERS)) {
      const call = this.users[path.slice(USERS.length)];
      if (call) return call(body);
    }
    for (const [verb, pattern, call] of this.paths) {
      const match = verb === method && pattern.exec(path);
      if (match) return call(body, ...match.slice(1));
    }
    throw new Refusal(404, 'unimplemented');
  }

  users = {
    CreateUser: (body) => {
      if (body.organizationId !== ORGANIZATION || !body.machine) throw new Refusal(400, 'invalid_argument');
      return { id: this.accounts.create(body.username).id };
    },
    ListUsers: (body) => {
      if (body.queries?.some((one) => one.typeQuery)) {
        const machines = query(body.queries, 'typeQuery').type === 'TYPE_MACHINE';
        const users = Object.values(this.accounts.users).filter((user) => Boolean(user.isMachine) === machines);
        users.sort((one, other) => (one.name < other.name ? -1 : 1));
        return { result: page(body, users.map(shown)) };
      }
      const user = this.accounts.named(query(body.queries, 'userNameQuery').userName);
      return user ? { result: [shown(user)] } : {};
    },
    GetUserByID: (body) => ({ user: shown(this.accounts.get(body.userId)) }),
    AddKey: (body) => {
      const expires = Date.parse(body.expirationDate) / 1000;
      if (!(expires > 0)) throw new Refusal(400, 'invalid_argument');
      return { keyId: this.accounts.addKey(body.userId, Buffer.from(body.publicKey, 'base64').toString(), expires) };
    },
    ListKeys: (body) => {
      const user = this.accounts.users[query(body.filters, 'userIdFilter').id];
      return { result: Object.keys(user?.keys ?? {}).map((id) => ({ id })) };
    },
    RemoveKey: (body) => {
      delete this.accounts.get(body.userId).keys[body.keyId];
      return {};
    },
    DeactivateUser: (body) => this.#switch(body.userId, false),
    ReactivateUser: (body) => this.#switch(body.userId, true),
  };

  paths = [
    ['PUT', /^\/management\/v1\/users\/([^/]+)\/machine$/, (body, id) => {
      const user = this.accounts.get(id);
      const wanted = body.accessTokenType === JWT_TOKENS;
      if (user.jwt === wanted) throw precondition();
      user.jwt = wanted;
      return {};
    }],
    ['POST', /^\/management\/v1\/users\/grants\/_search$/, (body) => {
      const { projectId } = query(body.queries, 'projectIdQuery');
      const wanted = body.queries.find((one) => one.userIdQuery)?.userIdQuery.userId;
      const users = Object.values(this.accounts.users).filter((user) => user.grants[projectId] && (wanted ?? user.id) === user.id);
      const found = users.map((user) => ({ id: user.grants[projectId].id, userId: user.id, projectId, roleKeys: user.grants[projectId].roles }));
      return found.length ? { result: page(body, found) } : {};
    }],
    ['POST', /^\/management\/v1\/users\/([^/]+)\/grants$/, (body, id) => {
      const { grants } = this.accounts.get(id);
      if (grants[body.projectId]) throw new Refusal(409, 'already_exists');
      grants[body.projectId] = { id: this.accounts.newId(), roles: body.roleKeys };
      return { userGrantId: grants[body.projectId].id };
    }],
    ['PUT', /^\/management\/v1\/users\/([^/]+)\/grants\/([^/]+)$/, (body, id, number) => {
      const grant = Object.values(this.accounts.get(id).grants).find((one) => one.id === number);
      if (!grant) throw missing();
      grant.roles = body.roleKeys;
      return {};
    }],
    ['GET', /^\/v2\/oidc\/device_authorization\/([^/]+)$/, async (body, userCode) => {
      const code = await this.#code(userCode);
      return { deviceAuthorizationRequest: { id: code.userCode, clientId: code.clientId } };
    }],
    ['POST', /^\/v2\/oidc\/device_authorization\/([^/]+)$/, (body, userCode) => this.#decide(userCode, body)],
    ['POST', /^\/standin\/device_codes\/([^/]+)\/expire$/, async (body, userCode) => {
      const code = await this.#code(userCode);
      await code.constructor.adapter.upsert(code.jti, { ...(await code.constructor.adapter.find(code.jti)), exp: Math.floor(Date.now() / 1000) - 1 });
      return {};
    }],
    ['POST', /^\/v2\/web_keys$/, () => {
      const id = this.accounts.addSigningKey();
      this.rotated();
      return { id };
    }],
    ['POST', /^\/v2\/web_keys\/([^/]+)\/activate$/, (body, kid) => {
      if (!this.accounts.signing.some((key) => key.kid === kid)) throw precondition();
      this.accounts.active = kid;
      this.rotated();
      return {};
    }],
    ['DELETE', /^\/v2\/web_keys\/([^/]+)$/, (body, kid) => {
      if (kid === this.accounts.active) throw precondition();
      this.accounts.signing = this.accounts.signing.filter((key) => key.kid !== kid);
      this.rotated();
      return {};
    }],
  ];

  #switch(id, active) {
    const user = this.accounts.get(id);
    if (user.active === active) throw precondition();
    user.active = active;
    return {};
  }

  async #code(userCode) {
    const code = await this.current().DeviceCode.findByUserCode(userCode.replace(/-/g, ''), { ignoreExpiration: true });
    if (!code) throw missing();
    return code;
  }

  async #decide(userCode, body) {
    const provider = this.current();
    const code = await this.#code(userCode);
    if (body.deny) {
      Object.assign(code, { error: 'access_denied', errorDescription: 'denied' });
    } else {
      const grant = new provider.Grant({ accountId: this.accounts.person, clientId: APP });
      grant.addOIDCScope('openid profile');
      const now = Math.floor(Date.now() / 1000);
      Object.assign(code, { accountId: this.accounts.person, grantId: await grant.save(), authTime: now, scope: code.params?.scope ?? 'openid' });
    }
    await code.save();
    return {};
  }
}
