// What the extension draws in the workbench: everything that a test knows of its titles and its page is here.
import { eventually } from './wait.mjs';
import { Workbench } from './workbench.mjs';

const reviewButton = '.action-label[aria-label^="Create Draft Review"]';

export class Fairlead {
	constructor(wb) { this.wb = wb; }

	get status() { return this.wb.status('fairlead.status'); }

	/** state waits until the status bar says so. */
	state(what, o) { return this.status.filter({ hasText: what }).waitFor(o); }

	/** firstClick is on the status bar: the nearest thing in a window with nothing but a folder open. */
	async firstClick() {
		await this.state('Fairlead: run');
		await this.status.locator('a').click();
	}

	/** choose clicks on the status bar once it says so, and takes what the menu offers. */
	async choose(what, state) {
		await this.state(state);
		await this.status.locator('a').click();
		await this.wb.quick.locator('.monaco-list-row', { hasText: what }).first().click();
		await this.wb.quick.waitFor({ state: 'hidden' });
	}

	/** lens waits for a lens above func main; VS Code asks for new ones a while after it was told of a change. */
	lens(text) { return this.wb.page.locator('.codelens-decoration', { hasText: text }).first().waitFor(); }

	get runButton() { return this.wb.titleButton('Run in Environment'); }

	get debugButton() { return this.wb.titleButton('Debug in Environment'); }

	/** reviewTitle is Source Control's, with reviewButton in it. */
	get reviewTitle() { return this.wb.page.locator('.pane-header', { has: this.wb.page.locator(reviewButton) }); }

	get reviewButton() { return this.reviewTitle.locator(reviewButton); }

	/** step waits until the quick input has this title, and says so. */
	async step(title, what) {
		await this.wb.quick.locator('.quick-input-title', { hasText: title }).waitFor();
		if (what instanceof RegExp) await this.wb.quick.locator('.quick-input-message', { hasText: what }).waitFor();
		else await this.wb.quick.locator(`input.input[placeholder^="${what}"]`).waitFor();
	}

	/** picks are the rows of a list of several, by their first words: whether each is ticked. */
	async picks() {
		const rows = this.wb.quick.locator('.monaco-list-row');
		await rows.first().waitFor();
		return Object.fromEntries(await rows.evaluateAll((all) => all.map((r) => [r.querySelector('.label-name').textContent.trim(), r.querySelector('[aria-checked]')?.getAttribute('aria-checked') === 'true'])));
	}

	pickRow(text) { return this.wb.quick.locator('.monaco-list-row', { hasText: text }).first(); }

	/** accept takes the step as it is. */
	accept() { return this.wb.quick.locator('input.input').press('Enter'); }

	command(title) { return this.wb.palette(`Fairlead: ${title}`); }

	/** environments brings the tree up. */
	async environments() {
		await this.wb.palette('Focus on Environments View');
		await this.tree.first().waitFor();
	}

	get tree() { return this.wb.page.locator('.pane-body .monaco-list[aria-label^="Environments"] .monaco-list-row, .pane-body .tree-explorer-viewlet-tree-view .monaco-list-row'); }

	row(text) { return this.tree.filter({ hasText: text }).first(); }

	/** act clicks an action of a row, which shows when the pointer is there. */
	async act(text, action) {
		const row = this.row(text);
		await row.hover();
		await row.locator(`.action-label[aria-label^="${action}"]`).click();
	}

	/** logs brings the log view up and returns its page. */
	async logs() {
		await this.wb.palette('Focus on Logs View');
		return new Logs(await this.wb.webview('.list'), this.wb);
	}
}

/** Logs is the page of the log view. */
export class Logs {
	constructor(frame, wb) { Object.assign(this, { frame, wb }); }

	/** text is what is drawn: the page draws only the lines that are in sight. */
	async text() { return Workbench.norm(await this.frame.locator('.list').innerText()); }

	shows(what) { return eventually(`the log view shows ${what}`, async () => (what instanceof RegExp ? what.test(await this.text()) : (await this.text()).includes(what))); }

	/** watch begins to measure how long the page is busy without a pause. */
	watch() {
		return this.frame.evaluate(() => {
			globalThis.longestTask = 0;
			new PerformanceObserver((l) => { for (const e of l.getEntries()) globalThis.longestTask = Math.max(globalThis.longestTask, e.duration); }).observe({ type: 'longtask' });
		});
	}

	longest() { return this.frame.evaluate(() => globalThis.longestTask); }

	filter(text) { return this.frame.locator('input[aria-label^="Filter"]').fill(text); }

	link(text) { return this.frame.locator('a, .link', { hasText: text }).first(); }
}
