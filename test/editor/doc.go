// Package editor is the loop as plain editors have it: Neovim's built-in client and Emacs's eglot, headless, without a
// plugin, with the real program and a real service on the local provider. Its tests are neovim.lua and emacs.el.
package editor
