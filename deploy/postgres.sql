-- Run once, when the database is made: nobody comes in but the roles that `stocks prepare` lets in.
revoke connect, temporary on database stocks from public;
