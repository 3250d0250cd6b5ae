// A real Gitea with nothing in it, for as long as the test lasts.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { repository } from './machine.mjs';
import { within } from './wait.mjs';

export class Gitea {
	/** start gives undefined, and skips the test, where Gitea is not built; under CI=true that is an error. */
	static async start(m, t) {
		// With our own environment: what is built is in the user's cache, not in the machine's.
		const proc = spawn('go', ['run', './test/gitea/serve'], { cwd: repository, stdio: ['pipe', 'pipe', 'pipe'] });
		const ended = once(proc, 'exit');
		let said = '', line = '';
		proc.stderr.setEncoding('utf8').on('data', (d) => { said += d; });
		proc.stdin.on('error', () => { /* it has ended */ });
		m.cleanup(async () => { proc.stdin.end(); await ended; });
		const ready = new Promise((done) => proc.stdout.setEncoding('utf8').on('data', (d) => { line += d; if (line.includes('\n')) done(true); }));
		if (!await within('Gitea starts', Promise.race([ready, ended.then(() => false)]), 180_000)) {
			if (!said.includes('Gitea is not built') || process.env.CI === 'true') throw new Error(said);
			t.skip(said.trim().split('\n')[0]);
			return undefined;
		}
		return Object.assign(new Gitea(), JSON.parse(line));
	}

	/** call asks /api/v1 as the administrator, or as somebody in whose name she may. */
	async call(method, at, body, headers = {}) {
		const r = await fetch(`${this.url}/api/v1${at}`, { method, headers: { Authorization: `token ${this.token}`, 'Content-Type': 'application/json', ...headers }, body: body && JSON.stringify(body) });
		const text = await r.text();
		if (!r.ok) throw new Error(`${method} ${at}: ${r.status} ${text.slice(0, 300)}`);
		return text && JSON.parse(text);
	}

	/**
	 * user makes one, with the address NAME@acme.dev (example.com is taken for nobody's), which hidden keeps from others, and returns a token
	 * that has these scopes only.
	 */
	async user(name, full, { scopes = [], hidden = false } = {}) {
		const password = `${name}'s password`;
		await this.call('POST', '/admin/users', { username: name, full_name: full, email: `${name}@acme.dev`, password, must_change_password: false });
		const Authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
		if (hidden) await this.call('PATCH', '/user/settings', { hide_email: true }, { Authorization });
		return scopes.length > 0 && (await this.call('POST', `/users/${name}/tokens`, { name: 'test', scopes }, { Authorization })).sha1;
	}
}
