// The users of the stand-in, their keys and their grants, and the provider's own signing keys: kept in one file, so
// that a provider that is started again knows them.

import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export class Refusal extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
    this.code = code;
  }
}

export const missing = () => new Refusal(404, 'not_found');

export class Accounts {
  constructor(folder) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.file = join(folder, 'state.json');
    this.keyFile = join(folder, 'admin-key.json');
    if (existsSync(this.file)) {
      Object.assign(this, JSON.parse(readFileSync(this.file, 'utf8')));
    } else {
      this.last = 310000000000000000n.toString();
      this.users = {};
      this.signing = [];
      this.person = this.create('fleet-operator', false).id;
      this.#makeAdministrator();
      this.addSigningKey();
      this.active = this.signing[0].kid;
      this.save();
    }
  }

  newId() {
    this.last = (BigInt(this.last) + 1n).toString();
    return this.last;
  }

  save() {
    const { last, users, signing, active, person } = this;
    writeFileSync(`${this.file}.new`, JSON.stringify({ last, users, signing, active, person }), { mode: 0o600 });
    renameSync(`${this.file}.new`, this.file);
  }

  create(name, isMachine = true) {
    if (this.named(name)) throw new Refusal(409, 'already_exists');
    const user = { id: this.newId(), name, isMachine, active: true, admin: false, jwt: false, keys: {}, grants: {} };
    this.users[user.id] = user;
    return user;
  }

  named(name) {
    return Object.values(this.users).find((user) => user.name === name);
  }

  get(id) {
    const user = this.users[id];
    if (!user) throw missing();
    return user;
  }

  ofKey(kid) {
    return Object.values(this.users).find((user) => user.keys[kid]);
  }

  addKey(id, pem, expires) {
    const user = this.get(id);
    try {
      if (!pem.includes('PUBLIC KEY')) throw new Error('private');
      createPublicKey(pem);
    } catch {
      throw new Refusal(400, 'invalid_argument');
    }
    const kid = this.newId();
    user.keys[kid] = { pem, expires };
    return kid;
  }

  addSigningKey() {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const kid = this.newId();
    this.signing.push({ ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' });
    return kid;
  }

  #makeAdministrator() {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const admin = this.create('fleet-enrolment');
    admin.admin = true;
    const pem = publicKey.export({ type: 'spki', format: 'pem' });
    const keyId = this.addKey(admin.id, pem, Date.now() / 1000 + 10 * 365 * 86400);
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' });
    writeFileSync(this.keyFile, JSON.stringify({ type: 'serviceaccount', keyId, key, userId: admin.id }), { mode: 0o600 });
  }
}
