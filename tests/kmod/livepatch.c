// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch that can be seen: it replaces the function behind /proc/cmdline, which then shows LIVEPATCH_TEXT.
 * Tests build it for the distribution's kernel, so that everything is tried on a real module. A later patch replaces
 * an earlier one as a whole, as patches are cumulative.
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifndef LIVEPATCH_TEXT
#error "define the text to show; build.sh does"
#endif

/* Another name makes a module that is well formed, and that the kernel refuses when it is inserted. */
#ifndef LIVEPATCH_FUNCTION
#define LIVEPATCH_FUNCTION "cmdline_proc_show"
#endif

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_puts(m, LIVEPATCH_TEXT "\n");
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = LIVEPATCH_FUNCTION,
		.new_func = livepatch_cmdline_proc_show,
	},
	{ }
};

static struct klp_object objs[] = {
	{
		/* no name: the function is in the kernel itself */
		.funcs = funcs,
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.replace = true,
};

static int __init livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Shows a text in /proc/cmdline");
MODULE_INFO(livepatch, "Y");
