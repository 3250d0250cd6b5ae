// VS Code's own debugger as a person sees it: what a test knows of its titles and its page is here.
import assert from 'node:assert/strict';
import { eventually } from './wait.mjs';

export class Debugger {
	constructor(wb) { this.wb = wb; }

	get page() { return this.wb.page; }

	get toolbar() { return this.page.locator('.debug-toolbar'); }

	/** watch counts from now on how often the toolbar went away: it is there for as long as a session is. */
	async watch() {
		await this.toolbar.waitFor();
		await this.page.evaluate(() => {
			globalThis.toolbarGone = 0;
			const there = () => { const e = document.querySelector('.debug-toolbar'); return e !== null && getComputedStyle(e).display !== 'none'; };
			new MutationObserver(() => { if (!there()) globalThis.toolbarGone++; }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ['style', 'class'] });
		});
	}

	gone() { return this.page.evaluate(() => globalThis.toolbarGone); }

	/** toggle is F9 on the line. */
	async toggle(line) {
		await this.wb.goTo(line);
		await this.page.keyboard.press('F9');
		await this.glyph.first().waitFor();
	}

	get glyph() { return this.page.locator('.editor-instance .codicon-debug-breakpoint'); }

	get callStack() { return this.page.locator('.debug-call-stack').first(); }

	get stack() { return this.page.locator('.debug-call-stack .monaco-list-row'); }

	frame(name, line) { return this.page.locator(`.debug-call-stack .monaco-list-row[aria-label^="Stack Frame ${name}, line ${line}"]`).first(); }

	/** stopped waits until it stands in a function at a line, which the editor shows too. */
	async stopped(name, line) {
		await this.page.locator('.debug-top-stack-frame-line, .debug-top-stack-frame-column').first().waitFor();
		// Goroutines are rows too, and the one that stopped comes collapsed where there are several.
		await this.open(this.stack.filter({ hasText: name }), this.frame(name, line));
		await this.wb.page.locator('#status\\.editor\\.selection', { hasText: `Ln ${line},` }).waitFor();
	}

	/** value waits for a local variable's. */
	async value(name, want) {
		await this.open(this.page.locator('.debug-variables .monaco-list-row', { hasText: 'Locals' }), this.page.locator(`.debug-variables .monaco-list-row[aria-label="${name}, value ${want}"]`).first());
	}

	/** open opens a row of a tree until the wanted one below it shows. Rows are drawn anew, so that a click can be lost. */
	async open(rows, wanted) {
		await eventually(`${wanted}`, async () => {
			if (await wanted.isVisible()) return true;
			const shut = rows.and(this.page.locator('[aria-expanded="false"]')).first();
			if (await shut.count()) await shut.locator('.monaco-tl-twistie').click({ timeout: 1000 });
			await wanted.waitFor({ timeout: 2000 });
			return true;
		});
	}

	async press(action) { await this.toolbar.locator(`.action-label.codicon-debug-${action}`).first().click(); }

	/** running waits until nothing stands at a breakpoint. */
	running() { return this.toolbar.locator('.action-label.codicon-debug-pause').waitFor(); }

	/** ended waits until there is no session. */
	async ended() {
		await this.toolbar.waitFor({ state: 'hidden' });
		assert.equal(await this.page.locator('.debug-top-stack-frame-line').count(), 0);
	}
}
