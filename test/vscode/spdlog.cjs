// What VS Code needs of its native logging module, in plain JavaScript: without one, output channels stay empty and
// there are no logs of the extension host; with the real one, every machine would need a compiler.
const fs = require('fs');
const path = require('path');

const names = ['trace', 'debug', 'info', 'warning', 'error', 'critical', 'off'];

class Logger {
	constructor(file) {
		this.file = file;
		this.level = 2;
		this.raw = false;
		fs.mkdirSync(path.dirname(file), { recursive: true });
		fs.appendFileSync(file, '');
	}
	log(level, message) {
		if (level < this.level) return;
		const time = new Date().toISOString().replace('T', ' ').slice(0, 23);
		fs.appendFileSync(this.file, this.raw ? message : `${time} [${names[level]}] ${message}\n`);
	}
	trace(m) { this.log(0, m); }
	debug(m) { this.log(1, m); }
	info(m) { this.log(2, m); }
	warn(m) { this.log(3, m); }
	error(m) { this.log(4, m); }
	critical(m) { this.log(5, m); }
	getLevel() { return this.level; }
	setLevel(level) { this.level = level; }
	setPattern() { this.raw = false; }
	clearFormatters() { this.raw = true; }
	flush() {}
	drop() {}
}

// One assignment a name: VS Code imports this from an ES module, and Node must see the names without running it.
exports.version = 0;
exports.setLevel = () => {};
exports.setFlushOn = () => {};
exports.Logger = Logger;
exports.createRotatingLogger = async (_name, file) => new Logger(file);
exports.createAsyncRotatingLogger = async (_name, file) => new Logger(file);
