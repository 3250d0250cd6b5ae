// One test's machine: folders of its own, so that it has an agent of its own, a real Go, and the processes to end.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { eventually } from './wait.mjs';

export const here = path.dirname(import.meta.dirname);
export const repository = path.resolve(here, '../..');
export const out = path.join(here, 'out');

const need = (name) => {
	const v = process.env[name];
	if (!v) throw new Error(`${name} is not set: run these tests with go run ./test/run -only editors`);
	return v;
};

/** tools is the folder with VS Code, Node.js and Playwright; fairlead the executable under test. */
export const tools = need('FAIRLEAD_TEST_TOOLS');
export const fairlead = need('FAIRLEAD_TEST_BIN');
export const vsix = need('FAIRLEAD_TEST_VSIX');

/** cluster is the test cluster, if there is one. */
export const cluster = process.env.FAIRLEAD_TEST_KUBECONFIG && process.env.FAIRLEAD_TEST_REGISTRY
	? { kubeconfig: process.env.FAIRLEAD_TEST_KUBECONFIG, registry: process.env.FAIRLEAD_TEST_REGISTRY }
	: undefined;

const goNames = ['GOCACHE', 'GOMODCACHE', 'GOPATH', 'GOPROXY', 'GOSUMDB', 'GOFLAGS', 'GONOSUMDB'];
let goEnv;

export class Machine {
	constructor(name) {
		this.name = name;
		// Short: a socket's path has 107 bytes at most.
		this.root = fs.mkdtempSync(path.join('/tmp', 'fv'));
		for (const d of ['state', 'cache', 'run', 'home', 'config', 'data', 'tmp']) fs.mkdirSync(this.path(d), { mode: 0o700 });
		goEnv ??= Object.fromEntries(execFileSync('go', ['env', ...goNames], { encoding: 'utf8' }).split('\n').slice(0, goNames.length).map((v, i) => [goNames[i], v]));
		this.env = {
			...goEnv,
			PATH: process.env.PATH, LANG: 'C.UTF-8', HOME: this.path('home'), SHELL: '/bin/bash',
			XDG_STATE_HOME: this.path('state'), XDG_CACHE_HOME: this.path('cache'), XDG_RUNTIME_DIR: this.path('run'),
			XDG_CONFIG_HOME: this.path('config'), XDG_DATA_HOME: this.path('data'), TMPDIR: this.path('tmp'),
			GOTOOLCHAIN: 'local', GOTELEMETRY: 'off',
		};
		if (process.env.FAIRLEAD_PAYLOAD) this.env.FAIRLEAD_PAYLOAD = process.env.FAIRLEAD_PAYLOAD;
		// VS Code takes its environment from a login shell, and /etc/profile sets the PATH anew.
		fs.writeFileSync(this.path('home', '.bash_profile'), `export PATH='${process.env.PATH}' PS1='$ '\n`);
		fs.writeFileSync(this.path('home', '.bashrc'), `export PATH='${process.env.PATH}' PS1='$ '\n`);
		this.cleanups = [];
		this.started = [];
	}

	path(...p) { return path.join(this.root, ...p); }

	/** cleanup is called at the end, the last one first. */
	cleanup(f) { this.cleanups.push(f); }

	/** run starts fairlead; what it prints is in the result's .text. */
	run(dir, ...args) {
		const proc = spawn(fairlead, args, { cwd: dir, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
		const p = { name: `fairlead ${args.join(' ')}`, proc, text: '', ended: once(proc, 'exit') };
		this.started.push(p);
		for (const s of [proc.stdout, proc.stderr]) s.setEncoding('utf8').on('data', (d) => { p.text += d; });
		return p;
	}

	/** processes are all that have to do with this machine's folders, whoever started them. */
	processes() {
		return processes((p) => p.pid !== process.pid && (p.environ.includes(`${this.root}/`) || p.cmdline.includes(`${this.root}/`)));
	}

	/** supervisors are the processes of the pod's side; services what those started. */
	supervisors() { return this.processes().filter((p) => path.basename(p.exe).startsWith('fairlead-pod') && p.argv[1] === 'run'); }
	services() {
		const sup = new Set(this.supervisors().map((p) => p.pid));
		return this.processes().filter((p) => sup.has(p.parent) && !path.basename(p.exe).startsWith('fairlead-pod'));
	}
	agents() { return this.processes().filter((p) => p.argv[1] === 'agent'); }

	/** logs are the texts that tell what went wrong. */
	logs() {
		const found = fs.globSync(['*.log', 'state/**/*.log', 'user/logs/**/*.log'], { cwd: this.root });
		return [...this.started.map((p) => [p.name, p.text]), ...found.map((f) => [f, fs.readFileSync(this.path(f), 'utf8')])]
			.filter(([f, text]) => text.trim() && !/network|telemetry|ptyhost|remote(agent|cli|exthost)|agentHost|vscode\.(git|github|microsoft)/i.test(f));
	}

	async close() {
		for (const f of this.cleanups.reverse()) {
			try { await f(); } catch (e) { console.error(`${this.name}: cleaning up:`, e.message); }
		}
		// The agent and what it runs are no children of ours: they carry this machine's folders in their environment.
		await eventually('end what is left', () => {
			const left = this.processes();
			for (const p of left) { try { process.kill(p.pid, 'SIGKILL'); } catch { /* gone */ } }
			return left.length === 0;
		}, 10_000);
		if (!process.env.FAIRLEAD_TEST_KEEP) fs.rmSync(this.root, { recursive: true, force: true, maxRetries: 3 });
	}
}

const read = (f) => { try { return fs.readFileSync(f, 'latin1'); } catch { return ''; } };

export function processes(want) {
	const found = [];
	for (const name of fs.readdirSync('/proc')) {
		if (!/^\d+$/.test(name)) continue;
		const d = `/proc/${name}`;
		const cmdline = read(`${d}/cmdline`), stat = read(`${d}/stat`);
		const after = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
		if (!stat || after[0] === 'Z') continue;
		let exe = '';
		try { exe = fs.readlinkSync(`${d}/exe`); } catch { /* gone, or the kernel's */ }
		const p = { pid: Number(name), parent: Number(after[1]), cmdline, argv: cmdline.split('\0'), exe, environ: read(`${d}/environ`) };
		if (want(p)) found.push(p);
	}
	return found;
}
