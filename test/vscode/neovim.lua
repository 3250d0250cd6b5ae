-- The whole of what Neovim's built-in client needs: docs/editors.md explains each part.
vim.opt.number = true
vim.opt.signcolumn = 'yes'
vim.opt.laststatus = 2
vim.opt.termguicolors = true
vim.opt.swapfile = false
vim.diagnostic.config({ virtual_text = { prefix = '■' }, severity_sort = true })
vim.api.nvim_create_autocmd('FileType', {
	pattern = { 'go', 'yaml' },
	callback = function(args)
		local id = vim.g.fairlead or vim.lsp.start_client({
			name = 'fairlead',
			cmd = { vim.env.FAIRLEAD, 'lsp' },
			root_dir = vim.fn.getcwd(),
			init_options = { openBrowser = 'never' },
		})
		vim.g.fairlead = id
		vim.lsp.buf_attach_client(args.buf, id)
		vim.api.nvim_create_autocmd({ 'BufEnter', 'CursorHold', 'InsertLeave', 'BufWritePost' }, { buffer = args.buf, callback = vim.lsp.codelens.refresh })
	end,
})
