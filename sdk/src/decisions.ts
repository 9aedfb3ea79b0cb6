/** The calls of a client that the relay has not yet decided. */
import { SyncClientError, SyncErrorType } from './errors';
import type { FrameType, Role } from './protocol';

/** The time limit for a decision of the relay, ms. */
export const DECISION_MS = 10_000;

/** The time limit for a decision of a person, ms: the relay's own limit plus the round trip. */
export const ASK_MS = 35_000;

/** A call that the relay decides. */
export type Call =
  | 'pullStateFromPeer'
  | 'pushStateToPeer'
  | 'requestControl'
  | 'acceptControlTransfer'
  | 'releaseControl'
  /** Not a call of the application: asks for the previous role after a lost connection. */
  | 'reconnect';

/** A call as it is put to the relay. */
export interface Question {
  call: Call;
  /** The role that the caller wants. */
  wants: 'active' | 'passive';
  /** The type of the frame that asks for it. */
  type: FrameType;
  data: Record<string, unknown>;
  /** The time limit for the answer, ms. */
  patience: number;
  /** Whether a refusal is also an event, because the caller may not await the promise. */
  announced: boolean;
}

/** A call that is being decided. */
export interface Decision extends Question {
  promise: Promise<void>;
  settle(error?: SyncClientError): void;
}

/** The undecided calls, at most one of each kind. */
export class Decisions {
  private readonly _open = new Map<Call, Decision>();

  constructor(private readonly _failed: (error: SyncClientError) => void) {}

  /** Adds a question. A question of a call that is undecided already replaces it and shares its promise. */
  add(question: Question): Promise<void> {
    const same = this._open.get(question.call);
    if (same) {
      Object.assign(same, question);
      return same.promise;
    }
    const decision = this._decide(question);
    this._open.set(question.call, decision);
    if (question.announced) decision.promise.catch((error: SyncClientError) => this._failed(error));
    return decision.promise;
  }

  has(call: Call): boolean {
    return this._open.has(call);
  }

  /** Whether an undecided call asks for this role. */
  wants(role: 'active' | 'passive'): boolean {
    return this.all().some((decision) => decision.wants === role);
  }

  all(): Decision[] {
    return [...this._open.values()];
  }

  /** The client has this role now: settles the calls that asked for it. */
  reached(role: Role): void {
    for (const decision of this.all()) if (decision.wants === role) decision.settle();
  }

  /** Rejects the calls that `which` selects. Returns whether there were any. */
  refuse(which: (decision: Decision) => boolean, error: SyncClientError): boolean {
    const refused = this.all().filter(which);
    for (const decision of refused) decision.settle(error);
    return refused.length > 0;
  }

  private _decide(question: Question): Decision {
    let settle!: Decision['settle'];
    const promise = new Promise<void>((resolve, reject) => {
      const late = `no decision on ${question.call}() in ${question.patience} ms`;
      const timer = setTimeout(() => settle(new SyncClientError(SyncErrorType.TIMEOUT, late)), question.patience);
      settle = (error) => {
        clearTimeout(timer);
        this._open.delete(question.call);
        if (error) reject(error);
        else resolve();
      };
    });
    return { ...question, promise, settle };
  }
}
