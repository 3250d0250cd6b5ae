-- Neovim's built-in client, with nothing but what docs/editors.md says for 0.7, and colours for a picture.
vim.opt.number = true
vim.opt.signcolumn = 'yes'
vim.opt.laststatus = 2
vim.opt.tabstop = 4
vim.opt.swapfile = false
vim.opt.hlsearch = false
vim.opt.termguicolors = true
vim.cmd([[
	colorscheme slate
	highlight Normal guibg=#181818
	highlight SignColumn guibg=#181818
	highlight LineNr guifg=#6e7681
	highlight NonText guifg=#181818
	highlight LspCodeLens guifg=#4daafc
	highlight LspCodeLensSeparator guifg=#6e7681
	highlight DiagnosticError guifg=#f85149
	highlight DiagnosticUnderlineError gui=underline guisp=#f85149
]])
vim.diagnostic.config({ virtual_text = { prefix = '■' } })
vim.api.nvim_create_autocmd('FileType', {
	pattern = 'go',
	callback = function(args)
		local id = vim.lsp.start_client({
			name = 'fairlead',
			cmd = { vim.env.FAIRLEAD, 'lsp' },
			root_dir = vim.fn.getcwd(),
			init_options = { openBrowser = 'never' },
			on_attach = function()
				vim.lsp.codelens.refresh()
				-- 0.7 does not know that a server can ask it to refresh.
				vim.fn.timer_start(300, vim.lsp.codelens.refresh, { ['repeat'] = -1 })
			end,
		})
		vim.lsp.buf_attach_client(args.buf, id)
	end,
})
