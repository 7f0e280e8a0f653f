// The stand-in as a program: listens on loopback alone, says where in one line of JSON, and ends with SIGTERM.
//
//   node server.mjs --state FOLDER [--port N] [--token-life SECONDS]

import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { Accounts, Refusal } from './accounts.mjs';
import { Facade, ORGANIZATION } from './facade.mjs';
import { APP, DEVICE_CODE, JWT_PROFILE, MACHINES, makeProvider, PROJECT } from './provider.mjs';

const LARGEST = 64 * 1024;
const { values } = parseArgs({
  options: { state: { type: 'string' }, port: { type: 'string', default: '0' }, 'token-life': { type: 'string', default: '43200' } },
});
const options = { tokenLife: Number(values['token-life']) };
const accounts = new Accounts(values.state);
const polled = new Map();
let provider;
let engine;
let issuer;

function renew() {
  provider = makeProvider(issuer, accounts, options);
  engine = provider.callback();
}

const facade = new Facade(accounts, () => provider, renew);

async function bodyOf(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > LARGEST) throw new Refusal(413, 'invalid_argument');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function send(response, status, body) {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
}

// oidc-provider never says slow_down, and knows no grant without a client: both are added here.
async function tokens(request, response) {
  const form = new URLSearchParams(await bodyOf(request));
  if (form.get('grant_type') === JWT_PROFILE) form.set('client_id', MACHINES);
  if (form.get('grant_type') === DEVICE_CODE) {
    const code = form.get('device_code');
    const waited = Date.now() - (polled.get(code) ?? 0);
    polled.set(code, Date.now());
    if (waited < 5000 && !(await decided(code))) return send(response, 400, { error: 'slow_down' });
  }
  request.body = Object.fromEntries(form);
  return engine(request, response);
}

async function decided(code) {
  const found = await provider.DeviceCode.find(code, { ignoreExpiration: true });
  return !found || found.isExpired || found.error || found.accountId;
}

async function devices(request, response) {
  const end = response.end.bind(response);
  response.end = (chunk, ...rest) => {
    if (response.statusCode !== 200) return end(chunk, ...rest);
    const told = JSON.stringify({ ...JSON.parse(chunk), interval: 5 });
    response.setHeader('Content-Length', Buffer.byteLength(told));
    return end(told, ...rest);
  };
  return engine(request, response);
}

async function answer(request, response) {
  const path = decodeURIComponent(request.url.split('?')[0]);
  if (path === '/oauth/v2/token') return tokens(request, response);
  if (path === '/oauth/v2/device_authorization') return devices(request, response);
  if (/^\/(\.well-known|oauth|device)(\/|$)/.test(path)) return engine(request, response);
  try {
    await facade.authorize(request.headers.authorization);
    const told = await facade.answer(request.method, path, JSON.parse((await bodyOf(request)) || '{}'));
    accounts.save();
    return send(response, 200, told);
  } catch (error) {
    if (error instanceof Refusal) return send(response, error.status, { code: error.code, message: error.code });
    return send(response, 400, { code: 'invalid_argument', message: error.constructor.name });
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => send(response, 500, { code: 'internal', message: 'internal' }));
});
server.listen(Number(values.port), '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  renew();
  const told = { issuer, organization: ORGANIZATION, project: PROJECT, client: APP, person: 'fleet-operator', admin_key_file: accounts.keyFile };
  process.stdout.write(`${JSON.stringify(told)}\n`);
});
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
