// Rules of ESLint for the scripts of reports: `npx eslint@10` in this folder. It imports nothing, so that npx can run it.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ASSETS = fileURLToPath(new URL("runner/report/assets", import.meta.url));

// The page joins all scripts into one function, so each may use the names of the others.
const scripts = readdirSync(ASSETS, { recursive: true }).filter((name) => name.endsWith(".js"));
const shared = scripts.flatMap((name) => {
  const text = readFileSync(join(ASSETS, name), "utf8");
  return Array.from(text.matchAll(/^(function|const|let) (\w+)/gm), ([, kind, word]) => [word, kind === "let"]);
});

const BROWSER = [
  ...["document", "window", "location", "navigator", "getComputedStyle", "matchMedia", "addEventListener", "devicePixelRatio"],
  ...["atob", "ResizeObserver", "IntersectionObserver", "Event", "requestAnimationFrame", "uPlot"],
];
const NODE = ["process", "Buffer", "URL", "atob", "console"];

const readonly = (names) => names.map((name) => [name, false]);
const errors = (...names) => Object.fromEntries(names.map((name) => [name, "error"]));

// What is wrong, or reads as if it were.
const RULES = {
  ...errors("array-callback-return", "consistent-return", "constructor-super", "default-case-last", "eqeqeq", "for-direction"),
  ...errors("getter-return", "no-async-promise-executor", "no-case-declarations", "no-class-assign", "no-compare-neg-zero"),
  ...errors("no-cond-assign", "no-const-assign", "no-constant-binary-expression", "no-constant-condition", "no-control-regex"),
  ...errors("no-debugger", "no-delete-var", "no-dupe-args", "no-dupe-class-members", "no-dupe-else-if", "no-dupe-keys"),
  ...errors("no-duplicate-case", "no-empty", "no-empty-pattern", "no-ex-assign", "no-extra-boolean-cast", "no-fallthrough"),
  ...errors("no-func-assign", "no-global-assign", "no-import-assign", "no-invalid-regexp", "no-irregular-whitespace"),
  ...errors("no-loop-func", "no-loss-of-precision", "no-misleading-character-class", "no-new-native-nonconstructor"),
  ...errors("no-obj-calls", "no-octal", "no-param-reassign", "no-prototype-builtins", "no-redeclare", "no-regex-spaces"),
  ...errors("no-self-assign", "no-self-compare", "no-setter-return", "no-shadow", "no-shadow-restricted-names"),
  ...errors("no-sparse-arrays", "no-template-curly-in-string", "no-this-before-super", "no-undef", "no-unexpected-multiline"),
  ...errors("no-unmodified-loop-condition", "no-unreachable", "no-unreachable-loop", "no-unsafe-finally"),
  ...errors("no-unsafe-negation", "no-unsafe-optional-chaining", "no-unused-expressions", "no-unused-labels"),
  ...errors("no-useless-backreference", "no-useless-catch", "no-useless-escape", "no-useless-return", "no-var", "no-with"),
  ...errors("object-shorthand", "prefer-template", "require-yield", "use-isnan", "valid-typeof"),
  ...errors("no-eval", "no-implied-eval", "no-new-func", "no-script-url"),
  "no-unused-vars": ["error", { vars: "local", argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
  "prefer-const": ["error", { destructuring: "all" }],
};

export default [
  { linterOptions: { reportUnusedDisableDirectives: "error" }, rules: RULES },
  {
    files: ["runner/report/assets/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "script", globals: Object.fromEntries([...readonly(BROWSER), ...shared]) },
    rules: { "no-redeclare": ["error", { builtinGlobals: false }] }, // each script defines some of the shared names
  },
  { files: ["**/*.mjs"], languageOptions: { ecmaVersion: 2023, globals: Object.fromEntries(readonly(NODE)) } },
];
