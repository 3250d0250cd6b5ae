-- The loop in Neovim with its built-in client: run by the lens above func main, edit and save, break and mend, stop by a
-- code action. It ends with PASS and exit code 0, or with what was waited for and 1.
local ok, err = xpcall(function()
  local start = vim.loop.hrtime()
  local function say(...) print(string.format('%6.2f s  ', (vim.loop.hrtime() - start) / 1e9) .. string.format(...)) end
  local last
  local function wait(what, f)
    local ok = vim.wait(60000, function() last = f(); return last end, 20)
    assert(ok, 'timeout: ' .. what .. ' (last message: ' .. tostring(vim.g.fairlead_message) .. ')')
    return last
  end
  -- This version has no window/showDocument, so the server says the address.
  local url
  vim.lsp.handlers['window/showMessage'] = function(_, result)
    vim.g.fairlead_message = result.message
    url = result.message:match('live at (http%S+)') or url
  end
  local id = vim.lsp.start_client({ name = 'fairlead', cmd = { vim.env.FAIRLEAD, 'lsp' }, root_dir = vim.fn.getcwd() })
  vim.lsp.buf_attach_client(0, id)
  wait('initialize', function() local c = vim.lsp.get_client_by_id(id); return c and c.initialized end)
  say('initialized')

  local function lenses()
    local answer = vim.lsp.get_client_by_id(id).request_sync('textDocument/codeLens', { textDocument = vim.lsp.util.make_text_document_params() }, 5000, 0)
    local titles = {}
    for _, l in ipairs(answer.result) do table.insert(titles, l.command.title) end
    return table.concat(titles, ' | ')
  end
  local function get()
    local out = vim.fn.system({ 'curl', '-s', '--max-time', '10', url })
    return vim.v.shell_error == 0 and out or nil
  end
  local function replace(from, to)
    local n = vim.fn.search(from, 'nw')
    assert(n > 0, 'no ' .. from)
    local line = vim.api.nvim_buf_get_lines(0, n - 1, n, true)[1]
    vim.api.nvim_buf_set_lines(0, n - 1, n, true, { (line:gsub(vim.pesc(from), to)) })
    vim.cmd('write')
    return n - 1
  end
  local function diagnostics() return vim.tbl_filter(function(d) return d.source == 'fairlead' end, vim.diagnostic.get(0)) end

  -- Run, by the lens on the line of func main, as a person does.
  assert(lenses():find('Run in environment'), lenses())
  vim.api.nvim_win_set_cursor(0, { vim.fn.search('^func main', 'nw'), 0 })
  vim.lsp.codelens.refresh()
  wait('lens', function() return #vim.lsp.codelens.get(0) > 0 end)
  vim.ui.select = function(items, opts, on)
    for i, item in ipairs(items) do
      if opts.format_item(item):find('Run in environment') then return on(item, i) end
    end
    error('no Run among the lenses')
  end
  vim.lsp.codelens.run()
  wait('the address', function() return url end)
  say('live at %s', url)
  assert(wait('answer', get) == 'one', last)
  assert(wait('lens', function() local l = lenses(); return l:find('live') and l end):find('Open in browser'), last)
  say('lenses: %s', last)

  replace('"one"', '"two"')
  wait('two', function() return get() == 'two' end)
  say('the save is live')

  local line = replace('"two"', 'undefinedName')
  local d = wait('diagnostic', function() return diagnostics()[1] end)
  assert(d.lnum == line and d.col == 8 and d.end_col == 21 and d.message:find('undefined: undefinedName'), vim.inspect(d))
  assert(lenses():find('failed'), lenses())
  assert(get() == 'two', 'a broken save ended the service')
  say('diagnostic %d:%d-%d %s', d.lnum + 1, d.col + 1, d.end_col + 1, d.message)

  replace('undefinedName', '"three"')
  wait('three', function() return get() == 'three' end)
  wait('cleared', function() return #diagnostics() == 0 end)
  say('mended')

  -- The service panics: the diagnostic is on the line of ours that did it, until the save that mends it.
  line = replace('"three"', 'func() string { go func() { panic("boom") }(); select {} }()')
  d = wait('panic', function() vim.fn.system({ 'curl', '-s', '--max-time', '1', url }); return diagnostics()[1] end)
  assert(d.lnum == line and d.message:find('boom'), vim.inspect(d))
  say('panic %d:%d %s; lenses: %s', d.lnum + 1, d.col + 1, d.message:gsub('\n', ' | '), lenses())
  replace('func() string { go func() { panic("boom") }(); select {} }()', '"four"')
  wait('four', function() return get() == 'four' end)
  wait('cleared', function() return #diagnostics() == 0 end)

  vim.ui.select = function(items, opts, on)
    for i, item in ipairs(items) do
      if opts.format_item(item):find('Stop') then return on(item, i) end
    end
    error('no Stop among the actions')
  end
  vim.api.nvim_win_set_cursor(0, { vim.fn.search('^func main', 'nw'), 0 })
  vim.lsp.buf.code_action()
  wait('stopped', function() return lenses():find('Run in environment') end)
  assert(not get(), 'it answers still')
  say('stopped')

  vim.lsp.stop_client(id)
  wait('exit', function() return vim.lsp.client_is_stopped(id) end)
end, debug.traceback)
print(ok and 'PASS\n' or ('FAIL ' .. err .. '\n'))
vim.cmd(ok and 'qa!' or 'cq')
